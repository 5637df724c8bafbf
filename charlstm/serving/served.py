"""The models of a server, by name; each has an engine, and a better checkpoint takes its place."""

import dataclasses
import itertools
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
from charlstm.runtime.names import printable
from charlstm.serving.engine import Engine
from charlstm.storage import paths
from charlstm.storage.layout import MODEL_SUFFIX

_POLL_SECONDS = 0.1


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

    def reload(self, until: threading.Event) -> bool:
        """Takes another checkpoint if there is a better one; returns True if it does.

        What is being made is finished with the one that it was begun with, and waited for.

        Args:
          until: is set when the server ends.

        Raises:
          UserError: there is no model any more, or it could not be made ready.
        """
        if resolve(self.path) == self.folder:
            return False
        folder, engine, metadata = self._load()
        engine.start()
        while not (engine.is_ready or engine.has_failed or until.wait(_POLL_SECONDS)):
            pass
        if not engine.is_ready:
            engine.stop()
            engine.join()
            if engine.has_failed:
                raise UserError(f"{paths.shown(folder)} could not be made ready")
            return False
        old, self.engine = self.engine, engine
        self.folder, self.metadata = folder, metadata
        old.stop()
        old.join()
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

    A name that is taken gets a number: NAME-2, NAME-3.

    Raises:
      UserError: one cannot be loaded.
    """
    found: dict[str, Served] = {}
    for path in given:
        wanted = name_of(path)
        numbered = (f"{wanted}-{number}" for number in itertools.count(2))
        name = next(n for n in itertools.chain([wanted], numbered) if n not in found)
        found[name] = Served(name, path, options)
    return found


def name_of(path: str) -> str:
    """Returns the name of a model: RUN, RUN-STEP for one of its checkpoints, or that of a file."""
    place = Path(paths.absolute(path))
    if place.name == FOLDER:
        place = place.parent
    if place.parent.name == FOLDER:
        return f"{place.parent.parent.name}-{place.name}"
    name = place.stem if place.suffix == MODEL_SUFFIX else place.name
    return printable(name) or "model"


def watch(served: Served, seconds: float, until: threading.Event) -> None:
    """Looks for a better checkpoint of a model every so many seconds, until an event is set."""
    while not until.wait(seconds):
        try:
            if served.reload(until):
                logging.info("%s: now of %s", served.name, paths.shown(served.folder))
        except UserError as error:  # a run that is being written anew, or a network that is away
            logging.warning("%s: not reloaded: %s", served.name, error)
        except Exception:
            logging.exception("%s: not reloaded", served.name)
