"""Defines what is measured: the shapes of models and batches, their cost, and the text.

It needs only numpy, because competitors may live in an environment of their own.
"""

import dataclasses
import re
import tempfile
from typing import Any, Self

import numpy as np

# Every competitor trains with Adam and these values; the gradient is clipped to a global norm.
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
          ValueError: the text is of another form.
        """
        match = re.fullmatch(r"(\d+)x(\d+)-B(\d+)-T(\d+)(?:-V(\d+))?", text.strip())
        if not match:
            raise ValueError(f"shape {text!r} must look like 3x512-B64-T64 or 3x512-B64-T64-V84")
        return cls(*(int(number) for number in match.groups() if number))

    def __str__(self) -> str:
        symbols = "" if self.num_symbols == 256 else f"-V{self.num_symbols}"
        sizes = f"{self.num_layers}x{self.hidden_size}"
        return f"{sizes}-B{self.num_streams}-T{self.window_length}{symbols}"

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


def make_text(num_bytes: int = TEXT_BYTES, num_distinct: int = NUM_DISTINCT_BYTES) -> np.ndarray:
    """Makes the text that every competitor reads: uint8 [N].

    It is always the same, and its bytes are about as unevenly distributed as those of English.
    """
    known = np.arange(32, 32 + num_distinct, dtype=np.uint8)
    weights = 1 / np.arange(1, num_distinct + 1)
    rng = np.random.default_rng(0)
    text = rng.choice(known, num_bytes, p=weights / weights.sum())
    text[:num_distinct] = known  # so that each of them occurs
    return text


def symbols_of(shape: Shape) -> np.ndarray:
    """Returns the text as symbols, uint8 [N].

    They are bytes for V = 256, else the ranks of bytes among those that occur.
    """
    text = make_text()
    if shape.num_symbols == 256:
        return text
    return np.searchsorted(np.unique(text), text).astype(np.uint8)


def mapped_text(spec: dict[str, Any]) -> np.ndarray:
    """Maps a text on disk: uint8 [N].

    Args:
      spec: `path`, a file to map; or `mapped_bytes`, the size of a file to make. Such a file
        repeats the text of `make_text`, with a thousandth of each copy changed.
    """
    if "path" in spec:
        return np.memmap(spec["path"], np.uint8, mode="r")
    part = make_text()
    rng = np.random.default_rng(1)
    with tempfile.NamedTemporaryFile() as file:  # the mapping outlives the file's name
        for _ in range(max(1, spec["mapped_bytes"] // len(part))):
            copy = part.copy()
            places = rng.integers(0, len(copy), len(copy) // 1000)
            copy[places] = part[places - 1]
            file.write(copy.data)
        file.flush()
        return np.memmap(file.name, np.uint8, mode="r")
