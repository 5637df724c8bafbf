"""The models of a server, by name; each has an engine, and a better checkpoint takes its place."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from charlstm.checkpoint.metadata import METRIC, Metadata
from charlstm.checkpoint.reading import FOLDER, read_best, resolve
from charlstm.errors import UserError
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import meshes
from charlstm.serving.engine import Engine
from charlstm.storage import paths


@dataclasses.dataclass(frozen=True)
class Options:
    """How models are loaded.

    Attributes:
      compute_dtype: of the products; auto is the checkpoint's own choice.
      max_batch: texts side by side.
      cache_bytes: of the states of prompts that each model keeps.
    """

    compute_dtype: str = "auto"
    max_batch: int = 64
    cache_bytes: int = 2**26


class Served:
    """A model under its name.

    Args:
      name: that clients give.
      path: of the run, the checkpoint or the file.
      options: how it is loaded.

    Raises:
      UserError: there is no such model.
    """

    def __init__(self, name: str, path: str, options: Options):
        self.name, self.path, self._options = name, path, options
        self.created = int(time.time())
        self.folder, self.engine, self.metadata = self._load()

    def _load(self) -> tuple[Path, Engine, Metadata]:
        one_device = meshes.replicated(meshes.single_device_mesh())
        folder, model, metadata = read_best(LanguageModel, self.path, one_device)
        if self._options.compute_dtype != "auto":
            model = model.in_dtype(self._options.compute_dtype)
        options = self._options
        engine = Engine(model, max_batch=options.max_batch, cache_bytes=options.cache_bytes)
        return folder, engine, metadata

    def start(self) -> None:
        """Starts to compile."""
        self.engine.start()

    def reload(self) -> bool:
        """Takes another checkpoint if there is a better one; returns True if it does.

        What is being made is finished with the one that it was begun with.
        """
        if resolve(self.path) == self.folder:
            return False
        folder, engine, metadata = self._load()
        is_ready = threading.Event()
        engine.start(is_ready.set)
        is_ready.wait()
        old, self.engine = self.engine, engine
        self.folder, self.metadata = folder, metadata
        old.stop()
        return True

    def in_words(self) -> str:
        """Returns the size of the model and the dtype of its products."""
        model = self.engine.model
        num_layers, hidden_size = model.shape
        size = f"{num_layers} x LSTM({hidden_size}), {model.num_parameters:,} parameters"
        return f"{size}, {model.network.compute.dtype}"

    def describe(self) -> dict[str, Any]:
        """Returns what the protocol, and the page, tell of a model."""
        model = self.engine.model
        num_layers, hidden_size = model.shape
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "charlstm",
            "charlstm": {
                "num_layers": num_layers,
                "hidden_size": hidden_size,
                "alphabet": list(model.alphabet.symbols),
                "num_parameters": model.num_parameters,
                "bits_per_byte": self.metadata.metrics.get(METRIC),
                "reset_every": model.reset_every,
                "compute_dtype": str(model.network.compute.dtype),
            },
        }


def load(given: Sequence[str], options: Options) -> dict[str, Served]:
    """Loads models; returns them by names, which are those of their folders or files.

    Raises:
      UserError: one cannot be loaded.
    """
    found: dict[str, Served] = {}
    for path in given:
        name = _name(path)
        while name in found:
            name += "-2"
        found[name] = Served(name, path, options)
    return found


def _name(path: str) -> str:
    place = Path(paths.absolute(path)) if not paths.is_address(path) else Path(path)
    if place.parent.name == FOLDER:
        return f"{place.parent.parent.name}-{place.name}"
    return place.stem if place.suffix == ".safetensors" else place.name


def watch(served: Served, seconds: float, until: threading.Event) -> None:
    """Looks for a better checkpoint of a model every so many seconds, until an event is set."""
    while not until.wait(seconds):
        try:
            if served.reload():
                logging.info("%s: now of %s", served.name, paths.shown(served.folder))
        except UserError as error:  # a run that is being written anew, or a network that is away
            logging.warning("%s: not reloaded: %s", served.name, error)
