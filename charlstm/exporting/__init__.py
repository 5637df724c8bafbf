"""Writes models in formats that other programs read.

Each format is a module with

    write(model: LanguageModel, metadata: Metadata, output: Path, dtype: str) -> list[str]

which writes the model and returns lines on what one has to know to use it. It loads what it needs
when it is called: most formats need libraries that charlstm itself does not.
"""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax

from charlstm.checkpoint.reading import read_best, updates_of
from charlstm.config.checking import near
from charlstm.errors import UserError
from charlstm.model.language_model import LanguageModel
from charlstm.storage.layout import MODEL_SUFFIX


class Format(NamedTuple):
    """Describes a format.

    Attributes:
      module: that writes it.
      suffix: that its files must have; empty for any name.
      dtypes: that the weights may have in it, the default first.
    """

    module: str
    suffix: str
    dtypes: tuple[str, ...] = ("float32",)


FORMATS = {
    "safetensors": Format("charlstm.exporting.safetensors", MODEL_SUFFIX, ("float32", "bfloat16")),
    "onnx": Format("charlstm.exporting.onnx", ".onnx"),
    "stablehlo": Format("charlstm.exporting.stablehlo", ".stablehlo"),
}


def export(path: str, kind: str, output: Path, dtype: str | None = None) -> list[str]:
    """Writes the model of a checkpoint in another format.

    Args:
      path: of the checkpoint, see `charlstm.checkpoint.reading.resolve`.
      kind: one of `FORMATS`.
      output: the file to write; what was there is replaced in one step.
      dtype: of the weights; None takes the format's default.

    Returns:
      What to know of the file, a line each.

    Raises:
      UserError: there is no such checkpoint, the format does not go with the name, the dtype or the
        model, a library is missing, or the file cannot be written.
    """
    module = check(kind, output, dtype)
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place, model, metadata = read_best(LanguageModel, path, one_device)
    clock = metadata.clock | {"updates": updates_of(place, metadata)}
    metadata = dataclasses.replace(metadata, clock=clock)
    lines: list[str] = module.write(model, metadata, output, dtype or FORMATS[kind].dtypes[0])
    if model.reset_every:
        lines.append(
            f"trained with data.carry_state=false: set the state to zero every {model.reset_every} "
            "bytes"
        )
    return lines


def check(kind: str, output: Path, dtype: str | None) -> ModuleType:
    """Returns the module of a format that can be written like this.

    Raises:
      UserError: there is no such format, or it does not go with the name or the dtype.
    """
    if kind not in FORMATS:
        hint = near(kind, FORMATS)
        raise UserError(f"no format is named {kind!r}{hint}: the formats are {', '.join(FORMATS)}")
    module, suffix, dtypes = FORMATS[kind]
    if suffix and output.suffix != suffix:
        raise UserError(
            f"--format={kind} writes files named *{suffix}, not {output.name}: choose another name "
            "or format"
        )
    if dtype is not None and dtype not in dtypes:
        raise UserError(f"--format={kind} has weights in {' or '.join(dtypes)}, not {dtype}")
    return importlib.import_module(module)
