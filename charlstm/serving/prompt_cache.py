"""The states after texts that were read before: a prompt with such a beginning costs its end only.

The least recently used are forgotten when there are too many.
"""

from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np
import xxhash


class Column(NamedTuple):
    """What a model knows of a single text, on the host.

    Attributes:
      h, c: of each layer, float32 [H].
      logits: of what comes next, float32 [V].
      num_read: how many symbols were read.
    """

    h: list[np.ndarray]
    c: list[np.ndarray]
    logits: np.ndarray
    num_read: int

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        return sum(array.nbytes for array in (*self.h, *self.c, self.logits))


class PromptCache:
    """Keeps columns by the symbols that were read.

    Args:
      max_bytes: of all columns together.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._columns: OrderedDict[tuple[int, bytes], Column] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self.num_bytes = 0

    def put(self, symbols: np.ndarray, column: Column) -> None:
        """Keeps the column of a text, uint8 [N]."""
        key = len(symbols), xxhash.xxh3_128_digest(symbols.tobytes())
        self._forget(key)
        self._columns[key] = column
        self._lengths[len(symbols)] += 1
        self.num_bytes += column.num_bytes
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._columns)))

    def longest(self, symbols: np.ndarray) -> tuple[int, Column] | None:
        """Returns the longest beginning of a text that is known: its length, and its column."""
        digest, begin, found = xxhash.xxh3_128(), 0, None
        for length in sorted(self._lengths):
            if length > len(symbols):
                break
            digest.update(symbols[begin:length].tobytes())
            begin = length
            key = length, digest.digest()
            if key in self._columns:
                found = key
        if found is None:
            return None
        self._columns.move_to_end(found)
        return found[0], self._columns[found]

    def _forget(self, key: tuple[int, bytes]) -> None:
        column = self._columns.pop(key, None)
        if column is None:
            return
        self.num_bytes -= column.num_bytes
        self._lengths[key[0]] -= 1
        if not self._lengths[key[0]]:
            del self._lengths[key[0]]
