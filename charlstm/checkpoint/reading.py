"""Finds checkpoints, and reads models from them."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from charlstm.checkpoint import digests, exported, shipped
from charlstm.checkpoint.failures import DamagedCheckpoint, none_is_whole, reading
from charlstm.checkpoint.metadata import METRIC, Metadata, read_metadata
from charlstm.config import Config
from charlstm.errors import UserError
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.model.parameters import Params, abstract_params
from charlstm.runtime.targets import Target
from charlstm.storage import paths
from charlstm.storage.layout import CHECKPOINTS

FOLDER = CHECKPOINTS
_FOR_OTHERS = (".onnx", ".stablehlo", ".html")  # formats of charlstm export that it does not read
MODEL_ITEMS = ("params", "average")

AnyModel = TypeVar("AnyModel", bound=LanguageModel)


def resolve(path: str | Path) -> Path:
    """Returns the folder of the checkpoint that a path means; its model is as it was written.

    The path is a run folder, its `checkpoints`, or a checkpoint itself. Of a run it is the best
    checkpoint by validation bits per byte, or the newest if none was validated. Checkpoints that
    are damaged are passed over. Or the path is the file of an exported model, or the name of one
    that comes with charlstm: then the file is returned.

    Raises:
      DamagedCheckpoint: the path is a checkpoint that is damaged.
      UserError: there is no checkpoint, or none is whole.
    """
    while True:
        given = (shipped.find(path) or paths.local(path)).absolute()
        if not given.exists():
            raise UserError(f"no such checkpoint or run folder: {path}{shipped.hint(path)}")
        if given.is_file():
            if given.suffix in _FOR_OTHERS:
                raise UserError(
                    f"{path} is for other programs; charlstm reads what `charlstm export "
                    f"--format=safetensors` writes"
                )
            return given
        if (given / "params").is_dir() or (given / "metadata").is_dir():
            paths.fetch(given, MODEL_ITEMS)
            check(given, MODEL_ITEMS)
            return given
        folder = given / FOLDER if (given / FOLDER).is_dir() else given
        damaged: list[DamagedCheckpoint] = []
        steps = best_first(saved_steps(folder))
        for step in steps:
            paths.fetch(step, MODEL_ITEMS)
            try:
                check(step, MODEL_ITEMS)
            except DamagedCheckpoint as error:
                if step.exists():  # a run may delete old ones while we look
                    damaged.append(error)
                continue
            for found in damaged:
                logging.warning("passing over the checkpoint %s: %s", found.folder, found.reason)
            return step
        if damaged:
            raise none_is_whole(damaged, "give another run")
        if not steps:
            raise UserError(
                f"{path} holds no checkpoint: give a run folder with {FOLDER}/STEP in it, or one "
                f"of those; a run that ended before its first save has none{shipped.hidden(path)}"
            )


def saved_steps(folder: Path) -> list[Path]:
    """Returns the folders of the checkpoints in a folder, the newest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    steps = [entry for entry in entries if entry.name.isdecimal() and entry.is_dir()]
    return sorted(steps, key=lambda step: int(step.name), reverse=True)


def best_first(newest_first: Sequence[Path]) -> dict[Path, float]:
    """Returns the scores of checkpoints, the best first and of equal ones the newest; see `_score`.

    Args:
      newest_first: as `saved_steps` returns them.
    """
    scores = {step: _score(step) for step in newest_first}
    return dict(sorted(scores.items(), key=lambda item: item[1]))


def _score(step: Path) -> float:
    """Returns the validation bits per byte of a checkpoint; infinity if it has none.

    It is minus infinity if that cannot be read: it may be the best.
    """
    try:
        return read_metadata(step).metrics.get(METRIC, math.inf)
    except DamagedCheckpoint:
        return -math.inf


def check(folder: Path, items: Collection[str] | None = None) -> Metadata:
    """Returns the metadata of a checkpoint after making sure that its files are as written.

    Args:
      folder: of the checkpoint.
      items: those to look at; None for all.

    Raises:
      DamagedCheckpoint: they are not.
      UserError: it is of a newer format.
    """
    metadata = read_metadata(folder)
    reason = digests.damage(folder, metadata.digests, items)
    if reason:
        raise DamagedCheckpoint(folder, reason)
    return metadata


def metadata_of(place: Path) -> Metadata:
    """Reads the metadata of the model that is in a place, as `resolve` returns it.

    Raises:
      DamagedCheckpoint: the checkpoint is damaged.
      UserError: it is of a newer format.
    """
    return exported.read_metadata(place) if place.is_file() else read_metadata(place)


def name_of(place: Path) -> str:
    """Returns the name of a model by its place: of its run, or of its file."""
    if place.is_file():
        return place.stem
    return place.parent.parent.name if place.parent.name == FOLDER else place.name


def updates_of(place: Path, metadata: Metadata) -> int:
    """Returns after how many updates a model was saved; 0 if that is not known."""
    return int(place.name) if place.name.isdecimal() else metadata.clock.get("updates", 0)


def read_params(place: Path, metadata: Metadata, sharding: jax.sharding.Sharding) -> Params:
    """Reads the parameters to use of a checkpoint: the average if it has one.

    They are laid out by `sharding`.

    Args:
      place: the folder of the checkpoint, or the file of an exported model.
      metadata: of the checkpoint.
      sharding: see above.

    Raises:
      DamagedCheckpoint: the checkpoint is damaged.
    """
    if place.is_file():
        return exported.read_params(place, metadata, sharding)
    config = metadata.config
    params: Params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_params(config.model, metadata.alphabet.size),
    )
    average: dict[str, Any] = {"params": params}
    if config.optimizer.averaging == "triggered":
        average["start"] = jax.ShapeDtypeStruct((), jnp.int32, sharding=sharding)

    def read() -> Params:
        with ocp.StandardCheckpointer() as checkpointer:
            if config.optimizer.averaging == "none":
                return checkpointer.restore(place / "params", params)
            return checkpointer.restore(place / "average", average)["params"]

    return reading(place, read)


def read_model(
    kind: type[AnyModel], place: Path, sharding: jax.sharding.Sharding
) -> tuple[AnyModel, Metadata]:
    """Reads the model of a checkpoint, and its metadata.

    Args:
      kind: the class of the model.
      place: of one checkpoint, see `resolve`.
      sharding: of the parameters; its devices are what the model is compiled for.

    Raises:
      DamagedCheckpoint: the checkpoint is damaged.
      UserError: it is of a newer format.
    """
    metadata = metadata_of(place)
    params = read_params(place, metadata, sharding)
    target = Target.of(next(iter(sharding.device_set)))  # all are of one kind
    config = _runnable(metadata.config, target)
    return kind.of(config, metadata.alphabet, params, target), metadata


def _runnable(config: Config, target: Target) -> Config:
    """Returns a configuration with another time loop if the target does not have its own."""
    try:
        Network.of(config.model, target)
    except UserError:  # the run was made on devices of another kind
        return config.replace({"model.recurrence": "auto"})
    return config


def read_best(
    kind: type[AnyModel], path: str | Path, sharding: jax.sharding.Sharding
) -> tuple[Path, AnyModel, Metadata]:
    """Reads the model that a path means, also while a run writes and deletes checkpoints there.

    Args:
      kind, sharding: see `read_model`.
      path: see `resolve`.

    Returns:
      The place of the checkpoint as `resolve` returns it, the model, and the metadata.

    Raises:
      UserError: see `resolve`.
    """
    while True:
        folder = resolve(path)
        try:
            return folder, *read_model(kind, folder, sharding)
        except DamagedCheckpoint:
            if folder.exists():
                raise
