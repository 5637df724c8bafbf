"""Defines what is measured: the shapes of models and batches, their cost, and the text.

It needs only numpy, because peers may live in an environment of their own.
"""

import dataclasses
import re
from typing import Any, Self

import numpy as np

# Everybody trains with Adam and these values; the gradient is clipped to a global norm.
LEARNING_RATE, BETA_1, BETA_2, EPSILON, CLIP_NORM = 1e-3, 0.9, 0.99, 1e-8, 1.0

NUM_DISTINCT_BYTES = 84
TEXT_BYTES = 2**21
TEMPERATURE = 0.8  # of sampling


@dataclasses.dataclass(frozen=True)
class Shape:
    """Describes a model and its batch.

    Attributes:
      num_layers: L.
      hidden_size: H.
      num_streams: B, rows of the batch.
      window_length: T, time steps of an update.
      num_symbols: V.
    """

    num_layers: int
    hidden_size: int
    num_streams: int
    window_length: int
    num_symbols: int = 256

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `3x512-B64-T64`, or `3x1024-B64-T32-V84` for another alphabet.

        Raises:
          ValueError: the text is of another form, or no network has such sizes.
        """
        number = r"([1-9]\d*)"
        form = rf"{number}x{number}-B{number}-T{number}(?:-V{number})?"
        match = re.fullmatch(form, text.strip(), re.ASCII)
        if not match:
            raise ValueError(f"shape {text!r} must look like 3x512-B64-T64 or 3x512-B64-T64-V84")
        shape = cls(*(int(number) for number in match.groups() if number))
        if shape.num_symbols > 256:
            raise ValueError(f"shape {text!r} has more symbols than the 256 bytes")
        return shape

    def __str__(self) -> str:
        sizes, *symbols = self.model.split("-")
        return "-".join([sizes, f"B{self.num_streams}", f"T{self.window_length}", *symbols])

    @property
    def model(self) -> str:
        """Returns the model alone, as `3x512` or `3x512-V84`."""
        symbols = "" if self.num_symbols == 256 else f"-V{self.num_symbols}"
        return f"{self.num_layers}x{self.hidden_size}{symbols}"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, as `Shape(**…)` takes them."""
        return dataclasses.asdict(self)

    @property
    def bytes_per_update(self) -> int:
        """Returns the number of bytes that one update trains on."""
        return self.num_streams * self.window_length

    @property
    def products_per_byte(self) -> int:
        """Returns the multiply-adds of one byte's forward pass.

        A layer has two products [H]·[H, 4H]. The first layer has only one, because its input is a
        look-up. The head has one product [H]·[H, V]. Together: L·8H² - 4H² + H·V.
        """
        hidden = self.hidden_size
        return self.num_layers * 8 * hidden**2 - 4 * hidden**2 + hidden * self.num_symbols

    @property
    def training_flops_per_byte(self) -> int:
        """Returns the floating-point operations of training on one byte.

        A multiply-add counts as two. There are three passes of the same size: forward, backward to
        the inputs, and backward to the weights. Elementwise work is not counted.
        """
        return 6 * self.products_per_byte

    @property
    def weights_per_step(self) -> int:
        """Returns how many parameters are read to draw one symbol.

        These are all parameters, but only one row of the look-up table.
        """
        biases = self.num_layers * 4 * self.hidden_size + self.num_symbols
        return self.products_per_byte + 4 * self.hidden_size + biases


# What is measured if nobody asks for anything else, the most telling first: on an accelerator a
# compilation takes much of a minute.
CPU_SHAPES = tuple(map(Shape.parse, ("2x128-B32-T64", "3x512-B64-T64", "3x1024-B64-T32")))
ACCELERATOR_SHAPES = tuple(
    map(
        Shape.parse,
        (
            "3x1024-B256-T128",
            "3x512-B256-T128",
            "2x128-B256-T128",
            "3x1024-B64-T128",
            "3x1024-B1024-T128",
        ),
    )
)


def make_text(num_bytes: int = TEXT_BYTES, num_distinct: int = NUM_DISTINCT_BYTES) -> np.ndarray:
    """Makes the text that everybody reads: uint8 [N].

    It is always the same, and its bytes are about as unevenly distributed as those of English.
    """
    first = min(32, 256 - num_distinct)
    known = np.arange(first, first + num_distinct).astype(np.uint8)
    weights = 1 / np.arange(1, num_distinct + 1)
    rng = np.random.default_rng(0)
    text = rng.choice(known, num_bytes, p=weights / weights.sum())
    text[:num_distinct] = known  # so that each of them occurs
    return text


def text_of(shape: Shape) -> np.ndarray:
    """Makes the text for a shape: with V distinct bytes if that is the alphabet."""
    return make_text() if shape.num_symbols == 256 else make_text(num_distinct=shape.num_symbols)
