"""Holds texts in the forms that comparisons need; `charlstm.benchmark.shapes` makes them.

It needs only numpy, because competitors may live in an environment of their own.
"""

import tempfile
from typing import Any

import numpy as np

from charlstm.benchmark.shapes import Shape, make_text, text_of


def symbols_of(shape: Shape) -> np.ndarray:
    """Returns the text as symbols, uint8 [N].

    They are bytes for V = 256, else the ranks of bytes among those that occur.
    """
    text = text_of(shape)
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
