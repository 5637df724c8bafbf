"""The settings of drawing symbols, as users give them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from charlstm.errors import UserError
from charlstm.sampling.clamping import Clamp

WHOLE = (int, np.integer)
NUMBER = (*WHOLE, float, np.floating)


def require(
    name: str,
    value: Any,
    kind: tuple[type, ...],
    is_allowed: Callable[[Any], bool],
    must_be: str,
) -> None:
    """Raises `UserError` unless a value is of a kind, such as `NUMBER`, and allowed."""
    if isinstance(value, bool) or not isinstance(value, kind) or not is_allowed(value):
        raise UserError(f"{name}={value!r} must be {must_be}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of drawing symbols.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest symbol.
      top_k, top_p: see `filter_logits`.
      clamps: cells held at values before each step.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    clamps: tuple[Clamp, ...] = ()

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
          UserError: one is of the wrong type, or out of range.
        """
        for name, kind, is_allowed, must_be in (
            ("temperature", NUMBER, lambda v: 0 <= v < math.inf, "a finite number of 0 or more"),
            ("top_k", WHOLE, lambda v: v >= 0, "a whole number of 0 or more"),
            ("top_p", NUMBER, lambda v: 0 < v <= 1, "a number above 0 and at most 1"),
        ):
            require(name, getattr(self, name), kind, is_allowed, must_be)

    @property
    def filters(self) -> bool:
        """True if some symbols may be ruled out."""
        return self.top_k > 0 or self.top_p < 1
