"""Bits per byte of a seed script's model against seconds, scored by charlstm.

The script trains in its own interpreter and leaves its weights behind from time to time; they are
read as charlstm's parameters, and scored on the whole validation split as any model is.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from benchmarks import common
from benchmarks.turns import Entry, Outcome, take_turns
from benchmarks.workloads import Shape
from charlstm import distributed
from charlstm.config import ModelConfig
from charlstm.data.corpus import Alphabet, Corpus, load_corpus
from charlstm.training.program import evaluator_of

# Seconds and bits per byte.
Curve = list[tuple[float, float]]


def train(
    entry: Entry,
    shape: Shape,
    kind: Literal["bytes", "corpus"],
    corpus_name: str,
    turns: int,
    turn_seconds: int,
) -> tuple[Outcome, Curve]:
    """Trains a script and scores it after each turn.

    Args:
      entry: the script.
      shape: of its model; the alphabet's size is the corpus's.
      kind: its alphabet.
      corpus_name: what it is trained on, split as charlstm splits by default.
      turns: at least 2.
      turn_seconds: length of a turn.
    """
    corpus = load_corpus(corpus_name, 0.05, 0.05)
    alphabet = Alphabet.of(kind, corpus.data)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "symbols"
        text.write_bytes(alphabet.encode(corpus.split("train")).tobytes())
        spec = entry.spec | {
            "shape": dataclasses.replace(shape, num_symbols=alphabet.size).to_json(),
            "text": str(text),
            "snapshots": folder,
        }
        entry = dataclasses.replace(entry, spec=spec, count=turn_seconds, warm_up=0)
        # The first turn warms up and is not counted, but it is training all the same.
        (outcome,) = take_turns([entry], turns - 1, 0.0, common.say)
        if not outcome.ok:
            return outcome, []
        kept = sorted(Path(folder).glob("*.npz"), key=lambda path: float(path.stem))
        started = outcome.info["first_update_seconds"]
        model = ModelConfig(num_layers=shape.num_layers, hidden_size=shape.hidden_size)
        params = [params_of(dict(np.load(path))) for path in kept]
        bits = _score(params, model, corpus, alphabet)
        return outcome, [(started + float(p.stem), b) for p, b in zip(kept, bits, strict=True)]


def params_of(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """A script's weights (Keras's order of gates: i, f, c, o, which is ours) as our parameters."""
    *layers, kernel, bias = weights.values()
    names = ("weight_ih", "weight_hh", "bias")
    stack = {
        str(index): dict(zip(names, layers[3 * index : 3 * index + 3], strict=True))
        for index in range(len(layers) // 3)
    }
    return {"layers": stack, "head": {"kernel": kernel, "bias": bias}}


def _score(
    models: list[dict[str, Any]], model: ModelConfig, corpus: Corpus, alphabet: Alphabet
) -> list[float]:
    """Bits per byte of the validation split under each set of a model's parameters."""
    mesh = distributed.make_mesh(jax.device_count())
    start, stop = corpus.bounds.valid
    with jax.set_mesh(mesh):
        evaluate = evaluator_of(model, corpus.data, alphabet, mesh)(start, stop)
        whole = distributed.replicated(mesh)
        return [evaluate(jax.device_put(params, whole)).bits_per_byte for params in models]
