"""The temperature that suits a text best: logits are divided by it before they are scored.

Melis, Dyer & Blunsom (2018) choose it on the validation split. The mean nats are convex in its
inverse, so a coarse grid and a parabola through its three lowest points find it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from charlstm.errors import UserError
from charlstm.evaluation.evaluator import Evaluation

# An eighth of an octave apart, from 1/2 to 2.
GRID = tuple(2 ** (k / 8) for k in range(-8, 9))
FIT = "fit"


def parse(text: str) -> float | None:
    """Reads a temperature as users write it; returns None for `fit`.

    Raises:
      UserError: it is neither `fit` nor a number that float32 divides logits by.
    """
    if text == FIT:
        return None
    try:
        temperature = float(text)
    except ValueError:
        temperature = math.nan
    if not 1e-6 <= temperature <= 1e6:
        raise UserError(f"--temperature={text} must be a number from 1e-6 to 1e6, or fit")
    return temperature


def best_on_grid(nats: Sequence[float]) -> float:
    """Returns the best temperature, given the mean nats at each of `GRID`; rounded to 4 digits."""
    lowest = int(np.argmin(nats))
    if lowest in (0, len(GRID) - 1):
        return GRID[lowest]
    before, at, after = nats[lowest - 1 : lowest + 2]
    bend = before - 2 * at + after
    offset = (before - after) / (2 * bend) if bend > 0 else 0.0
    return float(f"{GRID[lowest] * 2 ** (offset / 8):.4g}")


# Scores the text between two bounds at each of several temperatures.
Scorer = Callable[[tuple[int, int], Sequence[float]], list[Evaluation]]


@dataclasses.dataclass(frozen=True)
class Tempered:
    """A score at a temperature.

    Attributes:
      plain: at temperature 1.
      score: at the temperature.
      temperature: that.
      on_valid: bits per byte there on the text that the temperature was chosen on; None if it was
        not chosen but given.
    """

    plain: Evaluation
    score: Evaluation
    temperature: float
    on_valid: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        found: dict[str, Any] = {
            "bits_per_byte": self.score.bits_per_byte,
            "nats": self.score.nats,
            "accuracy": self.score.accuracy,
            "temperature": self.temperature,
        }
        if self.temperature != 1:
            found["bits_per_byte_at_temperature_1"] = self.plain.bits_per_byte
        if self.on_valid is not None:
            found["valid_bits_per_byte"] = self.on_valid
        return found


def tempered(
    scorer: Scorer, bounds: tuple[int, int], valid: tuple[int, int], wanted: float | None
) -> Tempered:
    """Scores a text at the temperature wanted or, if that is None, at what suits another best.

    Args:
      scorer: scores.
      bounds: of the text.
      valid: of the text that the temperature is chosen on; it may be the same.
      wanted: the temperature.
    """
    is_chosen, on_valid = wanted is None, None
    if wanted is None:
        wanted = best_on_grid([found.nats for found in scorer(valid, GRID)])
        if valid != bounds:
            on_valid = scorer(valid, [wanted])[0].bits_per_byte
    plain, *others = scorer(bounds, [1.0] if wanted == 1 else [1.0, wanted])
    score = others[0] if others else plain
    if is_chosen and valid == bounds:
        on_valid = score.bits_per_byte
    return Tempered(plain, score, wanted, on_valid)
