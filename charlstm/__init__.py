"""Byte-level LSTM language models in JAX: train, evaluate, sample.

    import charlstm

    model = charlstm.load("runs/quickstart")
    model.bits_per_byte(b"To be, or not to be")
    model.generate(b"ROMEO:", 500, temperature=0.8)
    config = charlstm.load_config("quickstart").replace({"model.hidden_size": 512})
    model = charlstm.train(config, "runs/mine")

Importing it is cheap: JAX is loaded when a name that needs it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlstm.config import Config as Config
    from charlstm.config import load_config as load_config
    from charlstm.errors import Preempted as Preempted
    from charlstm.errors import TrainingFailed as TrainingFailed
    from charlstm.errors import UserError as UserError
    from charlstm.text_model import Model as Model
    from charlstm.text_model import State as State
    from charlstm.text_model import load as load
    from charlstm.training.hooks import Hook as Hook
    from charlstm.training.run import Run as Run
    from charlstm.training.trainer import train as train

__version__ = "0.1.0"

# The public names, and the modules that they are loaded from.
_PUBLIC = {
    "Config": "charlstm.config",
    "Hook": "charlstm.training.hooks",
    "Model": "charlstm.text_model",
    "Preempted": "charlstm.errors",
    "Run": "charlstm.training.run",
    "State": "charlstm.text_model",
    "TrainingFailed": "charlstm.errors",
    "UserError": "charlstm.errors",
    "load": "charlstm.text_model",
    "load_config": "charlstm.config",
    "train": "charlstm.training.trainer",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
