"""Reads what runs leave in their folders, for tests."""

import json

import numpy as np


def metrics(folder):
    """Returns the lines of `metrics.jsonl`; none before there is one."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(folder):
    """Returns the loss of every update."""
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["train_bits_per_byte"] for line in lines]


def checkpoints(folder):
    """Returns the updates that were saved, in order."""
    saved = folder / "checkpoints"
    names = [entry.name for entry in saved.iterdir()] if saved.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def numbers(model):
    """Returns all numbers of a model, in one array."""
    import jax

    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(model.params)])


def parameters(folder, step):
    """Returns all numbers of the model at `step`, in one array."""
    import charlstm

    return numbers(charlstm.load(folder / "checkpoints" / str(step)))
