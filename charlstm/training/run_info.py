"""`about.json`: facts about the text, the model and the machine of a run, for reports."""

import dataclasses
import platform
from typing import TYPE_CHECKING, Any

import flax
import jax
import optax
import orbax.checkpoint

import charlstm
from charlstm.model import parameters
from charlstm.runtime.xla import flags_in_force

if TYPE_CHECKING:
    from charlstm.training.run import Run

FILE = "about.json"


def run_info(run: "Run") -> dict[str, Any]:
    """Returns plain JSON values."""
    corpus, network = run.corpus, run.program.network
    kinds = sorted({device.device_kind for device in run.mesh.devices.flat})
    return {
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "num_bytes": len(corpus.data),
            "train_bytes": len(corpus.split("train")),
            "valid_bytes": len(corpus.split("valid")),
        },
        "alphabet": {"kind": run.alphabet.kind, "size": run.alphabet.size},
        "changes": run.run_state.changes,
        "num_parameters": parameters.num_parameters(run.train_state.params),
        "ngram_levels": [dataclasses.asdict(level) for level in run.levels],
        "environment": {
            "devices": f"{run.mesh.size} × {', '.join(kinds)}",
            "processes": jax.process_count(),
            "compute dtype": network.compute.dtype.name,
            "recurrence": network.describe(),
            "XLA flags": flags_in_force(),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            **versions(),
        },
    }


def versions() -> dict[str, str]:
    """Returns the versions of charlstm and of the libraries that its numbers depend on."""
    modules = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint}
    found = {name: module.__version__ for name, module in modules.items()}
    return {"charlstm": charlstm.__version__} | found
