"""Writes models in formats that other programs read.

Each format is a module with

    write(model: LanguageModel, metadata: Metadata, output: Path, dtype: str) -> list[str]

which writes the model and returns lines on what one has to know to use it. It loads what it needs
when it is called: most formats need libraries that charlstm itself does not. A page also takes the
model's `name` and, if they are given, options.
"""

import dataclasses
import importlib
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from charlstm.checkpoint.reading import name_of, read_best, updates_of
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
      is_page: it is a page that runs the model.
    """

    module: str
    suffix: str
    dtypes: tuple[str, ...] = ("float32",)
    is_page: bool = False


FORMATS = {
    "safetensors": Format("charlstm.exporting.safetensors", MODEL_SUFFIX, ("float32", "bfloat16")),
    "onnx": Format("charlstm.exporting.onnx", ".onnx"),
    "web": Format("charlstm.exporting.web", "", is_page=True),
    "stablehlo": Format("charlstm.exporting.stablehlo", ".stablehlo"),
}


def export(
    path: str, kind: str, output: Path, dtype: str | None = None, **options: Any
) -> list[str]:
    """Writes the model of a checkpoint in another format.

    Args:
      path: of the checkpoint, see `charlstm.checkpoint.reading.resolve`.
      kind: one of `FORMATS`.
      output: the file to write; what was there is replaced in one step.
      dtype: of the weights; None takes the format's default.
      options: of a page, see `charlstm.exporting.web`.

    Returns:
      What to know of the file, a line each.

    Raises:
      UserError: there is no such checkpoint, the format does not go with the name, the dtype or the
        model, a library is missing, or the file cannot be written.
    """
    module = check(kind, output, dtype, options)
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place, model, metadata = read_best(LanguageModel, path, one_device)
    clock = metadata.clock | {"updates": updates_of(place, metadata)}
    metadata = dataclasses.replace(metadata, clock=clock)
    is_page = FORMATS[kind].is_page
    if is_page:
        options["name"] = name_of(place)
    lines: list[str] = module.write(
        model, metadata, output, dtype or FORMATS[kind].dtypes[0], **options
    )
    if model.reset_every and not is_page:
        lines.append(
            f"trained with data.carry_state=false: set the state to zero every {model.reset_every} "
            "bytes"
        )
    return lines


def check(kind: str, output: Path, dtype: str | None, options: Collection[str] = ()) -> ModuleType:
    """Returns the module of a format that can be written like this.

    Raises:
      UserError: there is no such format, or it does not go with the name, the dtype or the options.
    """
    if kind not in FORMATS:
        hint = near(kind, FORMATS)
        raise UserError(f"no format is named {kind!r}{hint}: the formats are {', '.join(FORMATS)}")
    module, suffix, dtypes, is_page = FORMATS[kind]
    if suffix and output.suffix != suffix:
        raise UserError(
            f"--format={kind} writes files named *{suffix}, not {output.name}: choose another name "
            "or format"
        )
    if dtype is not None and dtype not in dtypes:
        raise UserError(f"--format={kind} has weights in {' or '.join(dtypes)}, not {dtype}")
    if options and not is_page:
        raise UserError(f"--{min(options)} goes with --format=web, not with {kind}: leave it out")
    return importlib.import_module(module)
