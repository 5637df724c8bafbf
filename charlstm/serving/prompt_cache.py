"""The states after texts that were read before: a prompt with such a beginning costs its end only.

The least recently used are forgotten when there are too many.
"""

from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np
import xxhash

# A text of fewer symbols is not worth keeping.
LEAST_LENGTH = 64
# About what Python and NumPy take for an entry, and for each of its arrays.
_OVERHEAD, _ARRAY_OVERHEAD = 500, 120


class Column(NamedTuple):
    """Holds the state of a model after a single text, on the host.

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
        arrays = (*self.h, *self.c, self.logits)
        return _OVERHEAD + sum(array.nbytes + _ARRAY_OVERHEAD for array in arrays)


class PromptCache:
    """Keeps columns by the symbols that were read.

    Args:
      max_bytes: of all columns together; 0 keeps none.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._columns: OrderedDict[_Key, Column] = OrderedDict()
        # The lengths of texts by how they begin: others need not be looked at.
        self._lengths: dict[bytes, Counter[int]] = {}
        self.num_bytes = 0

    @property
    def keeps(self) -> bool:
        """True if it keeps anything."""
        return self._max_bytes > 0

    def put(self, symbols: np.ndarray, column: Column, kind: int = 0) -> None:
        """Keeps the column of a text, uint8 [N]; see `longest`."""
        if len(symbols) < LEAST_LENGTH or column.num_bytes > self._max_bytes:
            return
        digest = xxhash.xxh3_128_digest(symbols.tobytes(), seed=kind)
        key = _Key(_beginning(symbols, kind), len(symbols), digest)
        self._forget(key)
        self._columns[key] = column
        self._lengths.setdefault(key.beginning, Counter())[key.length] += 1
        self.num_bytes += column.num_bytes
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._columns)))

    def longest(self, symbols: np.ndarray, kind: int = 0) -> tuple[int, Column] | None:
        """Returns the longest beginning of a text that is known: its length, and its column.

        Args:
          symbols: uint8 [N].
          kind: of the columns; those of another kind were computed in another way.
        """
        beginning = _beginning(symbols, kind)
        hashed, begin, found = xxhash.xxh3_128(seed=kind), 0, None
        for length in sorted(self._lengths.get(beginning, ())):
            if length > len(symbols):
                break
            hashed.update(symbols[begin:length].tobytes())
            begin = length
            key = _Key(beginning, length, hashed.digest())
            if key in self._columns:
                found = key
        if found is None:
            return None
        self._columns.move_to_end(found)
        return found.length, self._columns[found]

    def _forget(self, key: "_Key") -> None:
        column = self._columns.pop(key, None)
        if column is None:
            return
        self.num_bytes -= column.num_bytes
        lengths = self._lengths[key.beginning]
        lengths[key.length] -= 1
        if not lengths[key.length]:
            del lengths[key.length]
        if not lengths:
            del self._lengths[key.beginning]


class _Key(NamedTuple):
    beginning: bytes
    length: int
    digest: bytes


def _beginning(symbols: np.ndarray, kind: int) -> bytes:
    return xxhash.xxh3_64_digest(symbols[:LEAST_LENGTH].tobytes(), seed=kind)
