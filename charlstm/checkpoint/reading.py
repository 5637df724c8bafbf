"""Finds checkpoints, and reads models from them."""

from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from charlstm.checkpoint.failures import reading
from charlstm.checkpoint.metadata import METRIC, Metadata, read_metadata
from charlstm.errors import UserError
from charlstm.model.language_model import LanguageModel
from charlstm.model.parameters import Params, abstract_params
from charlstm.runtime.targets import Target

FOLDER = "checkpoints"

AnyModel = TypeVar("AnyModel", bound=LanguageModel)


def resolve(path: str | Path) -> Path:
    """Returns the folder of the checkpoint that a path means.

    The path is a run folder, its `checkpoints`, or a checkpoint itself. Of a run it is the best
    checkpoint by validation bits per byte, or the newest if none was validated.

    Raises:
      UserError: there is no checkpoint.
    """
    given = Path(path).absolute()
    if not given.exists():
        raise UserError(f"no such checkpoint or run folder: {path}")
    if (given / "params").is_dir() and (given / "metadata").is_dir():
        return given
    folder = given / FOLDER if (given / FOLDER).is_dir() else given
    steps = [entry for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    if not steps:
        raise UserError(
            f"{path} holds no checkpoint: give a run folder with {FOLDER}/STEP in it, or one of "
            "those; a run that ended before its first save has none"
        )
    validated = {step: read_metadata(step).metrics.get(METRIC) for step in steps}
    best = {step: bits for step, bits in validated.items() if bits is not None}
    if best:
        return min(best, key=lambda step: (best[step], -int(step.name)))
    return max(steps, key=lambda step: int(step.name))


def read_params(folder: Path, metadata: Metadata, sharding: jax.sharding.Sharding) -> Params:
    """Reads the parameters to use of a checkpoint folder: the average if it has one.

    They are laid out by `sharding`.

    Raises:
      UserError: the checkpoint is damaged.
    """
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
                return checkpointer.restore(folder / "params", params)
            return checkpointer.restore(folder / "average", average)["params"]

    return reading(folder, read)


def read_model(
    kind: type[AnyModel], folder: Path, sharding: jax.sharding.Sharding
) -> tuple[AnyModel, Metadata]:
    """Reads the model of a checkpoint folder, and its metadata.

    Args:
      kind: the class of the model.
      folder: of one checkpoint, see `resolve`.
      sharding: of the parameters; its devices are what the model is compiled for.

    Raises:
      UserError: the checkpoint is damaged or of a newer format.
    """
    metadata = read_metadata(folder)
    params = read_params(folder, metadata, sharding)
    target = Target.of(next(iter(sharding.device_set)))  # all are of one kind
    return kind.of(metadata.config, metadata.alphabet, params, target), metadata
