"""Clamping: cells held at values while a text is made, to see what they stand for."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from charlstm.errors import UserError
from charlstm.model.decode_step import DecodeState

_LIMIT = 2.0**127  # float32 has little more
_FORM = re.compile(r"(\d+):(\d+)=(.+)")


class Clamp(NamedTuple):
    """A cell and the value that its state is held at; layer and cell counted from 0."""

    layer: int
    cell: int
    value: float


def parse(specs: Sequence[str], num_layers: int, hidden_size: int) -> tuple[Clamp, ...]:
    """Reads cells written as `LAYER:CELL=VALUE`.

    Raises:
      UserError: one is written otherwise, or the model has no such cell.
    """
    found = []
    for spec in specs:
        match = _FORM.fullmatch(spec)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        if match is None or not abs(value) <= _LIMIT:
            raise UserError(f"--force={spec} must be LAYER:CELL=VALUE, such as --force=0:17=2.5")
        layer, cell = int(match[1]), int(match[2])
        if layer >= num_layers or cell >= hidden_size:
            raise UserError(
                f"--force={spec}: the model has layers 0 to {num_layers - 1} and in each cells 0 "
                f"to {hidden_size - 1}"
            )
        found.append(Clamp(layer, cell, value))
    return tuple(found)


def clamp(state: DecodeState, clamps: Sequence[Clamp]) -> DecodeState:
    """Returns the state with its clamped cells set to their values in every text.

    Done before each byte is read, this holds a cell but for what its gates do with that one byte.
    """
    c = list(state.c)
    for layer, cell, value in clamps:
        c[layer] = c[layer].at[cell].set(value)
    return DecodeState(state.h, c)
