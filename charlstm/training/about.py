"""`about.json`: what a run folder tells of its text, its model and its machine, for reports."""

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint

import charlstm
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.data.ngrams import NgramLevel
from charlstm.training.program import dtype_of, training_recurrence_of
from charlstm.xla import flags_in_force

FILE = "about.json"


def about(
    config: Config,
    corpus: Corpus,
    alphabet: Alphabet,
    num_parameters: int,
    levels: Sequence[NgramLevel],
    mesh: jax.sharding.Mesh,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Plain JSON values.

    Args:
      config: the experiment.
      corpus: its text.
      alphabet: of the model.
      num_parameters: how many numbers there are to learn.
      levels: of the validation split.
      mesh: the devices.
      versions: of the libraries.
    """
    model = config.model
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    return {
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "num_bytes": len(corpus.data),
            "train_bytes": len(corpus.split("train")),
            "valid_bytes": len(corpus.split("valid")),
        },
        "alphabet": {"kind": alphabet.kind, "size": alphabet.size},
        "num_parameters": num_parameters,
        "ngram_levels": [dataclasses.asdict(level) for level in levels],
        "environment": {
            "devices": f"{mesh.size} × {', '.join(kinds)}",
            "processes": jax.process_count(),
            "compute dtype": jnp.dtype(dtype_of(model)).name,
            "recurrence": training_recurrence_of(config),
            "XLA flags": flags_in_force(),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            **versions,
        },
    }


def versions() -> dict[str, str]:
    """Versions of charlstm and of the libraries that its numbers depend on."""
    modules = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint}
    found = {name: module.__version__ for name, module in modules.items()}
    return {"charlstm": charlstm.__version__} | found
