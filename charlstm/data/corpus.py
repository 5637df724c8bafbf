"""Defines a corpus, its splits, and the alphabet that maps bytes to symbols."""

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from charlstm.data.corpora import Source, open_corpus
from charlstm.data.mapped import TextFile, chunks
from charlstm.errors import UserError

SPLITS = ("train", "valid", "test", "all")

_COUNTED_TOGETHER = 2**20  # bytes; np.bincount turns each into an integer of 8 bytes


class Bounds(NamedTuple):
    """Says where each split starts and stops; train, valid and test follow one another."""

    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]


def split_bounds(num_bytes: int, valid: float, test: float) -> Bounds:
    """Splits a text into a training, a validation and a test part, in this order.

    Args:
      num_bytes: N, the size of the whole text.
      valid, test: the size of each, as a fraction of the text (below 1: ⌊fraction·N⌋ bytes) or as
        a number of bytes (1 or more).

    Raises:
      UserError: a size is neither of these, or nothing is left to train on.
    """
    sizes = []
    for name, size in (("valid_size", valid), ("test_size", test)):
        if not (0 <= size < 1 or (size >= 1 and float(size).is_integer())):
            raise UserError(
                f"data.{name}={size} must be a fraction below 1 or a whole number of bytes"
            )
        sizes.append(math.floor(size * num_bytes) if size < 1 else int(size))
    num_train = num_bytes - sum(sizes)
    if num_train < 1:
        raise UserError(
            f"data.valid_size={valid:g} and data.test_size={test:g} leave nothing of {num_bytes} "
            f"bytes to train on: they may take {max(num_bytes - 1, 0)} bytes together, or "
            f"fractions that add up to less than 1"
        )
    stops = (num_train, num_train + sizes[0], num_bytes)
    return Bounds((0, stops[0]), (stops[0], stops[1]), (stops[1], stops[2]))


@dataclass(frozen=True)
class Corpus:
    """Holds a text and its splits.

    Attributes:
      name: the text's name in messages.
      data: uint8 [N], read-only, in memory or mapped from disk.
      sha256: of all N bytes, in hex.
      bounds: where the splits start and stop.
      source: the absolute path of the file, the folder or the pattern; empty if there is none.
      file: the file that it was read from; None for a text that has none.
    """

    name: str
    data: np.ndarray
    sha256: str
    bounds: Bounds
    source: str = ""
    file: TextFile | None = None

    @classmethod
    def of(cls, source: Source, valid_size: float, test_size: float) -> Self:
        """Splits a text; raises as `split_bounds`."""
        bounds = split_bounds(len(source.data), valid_size, test_size)
        return cls(source.name, source.data, source.sha256, bounds, source.path, source.file)

    def require_unchanged(self) -> None:
        """Raises `UserError` if the file of the text was changed since it was opened.

        It costs one look at the file's size, time and inode, so it may be called often.
        """
        if self.file is not None and self.file.has_changed(self.sha256):
            raise UserError(
                f"{str(self.file.path)!r} was changed or removed while the run was reading it: "
                "what was saved before is intact; bring the old text back to go on, or choose "
                "another --workdir for the new one"
            )

    def bounds_of(self, split: str) -> tuple[int, int]:
        """Returns where `split` (one of `SPLITS`) starts and stops.

        Raises:
          UserError: the split has no bytes, or there is no such split.
        """
        if split not in SPLITS:
            raise UserError(f"no split is named {split!r}; the splits are {', '.join(SPLITS)}")
        start, stop = (0, len(self.data)) if split == "all" else getattr(self.bounds, split)
        if start == stop:
            raise UserError(
                f"the {split} split of {self.name} has no bytes: raise data.{split}_size to a "
                f"number of bytes, or to a fraction that gives at least one of its {len(self.data)}"
            )
        return start, stop

    def split(self, name: str) -> np.ndarray:
        """Returns the bytes of a split, uint8 [its size], without a copy; raises as `bounds_of`."""
        start, stop = self.bounds_of(name)
        return self.data[start:stop]

    def is_utf8(self) -> bool:
        """Returns True if the whole text is valid UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for _, part in chunks(self.data):
                decoder.decode(part.tobytes())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True


def load_corpus(
    spec: str, valid_size: float, test_size: float, sha256: str | None = None
) -> Corpus:
    """Opens the text that `spec` names (see `charlstm.data.corpora`) and splits it.

    Args:
      spec: the text.
      valid_size, test_size: see `split_bounds`.
      sha256: the digest of the text, if it is known; then the text is not read to compute it.

    Raises:
      UserError: see `open_corpus` and `split_bounds`.
    """
    return Corpus.of(open_corpus(spec, sha256), valid_size, test_size)


@dataclass(frozen=True)
class Alphabet:
    """Maps bytes to symbols 0 … size-1 and back.

    Attributes:
      kind: `bytes` for all 256 bytes, each its own symbol; `corpus` for only those of a text.
      symbols: the bytes in ascending order; the index of a byte here is its symbol.
    """

    kind: Literal["bytes", "corpus"]
    symbols: bytes

    @classmethod
    def of(cls, kind: Literal["bytes", "corpus"], data: np.ndarray) -> Self:
        """Returns the alphabet of a text, uint8 [N]."""
        if kind == "bytes":
            return cls(kind, bytes(range(256)))
        counts = np.zeros(256, np.int64)
        for _, part in chunks(data, _COUNTED_TOGETHER):
            counts += np.bincount(part, minlength=256)
        return cls(kind, bytes(np.flatnonzero(counts).tolist()))

    @property
    def size(self) -> int:
        """Returns the number of symbols, V."""
        return len(self.symbols)

    @cached_property
    def encode_table(self) -> np.ndarray:
        """Returns the symbol of every byte, uint8 [256]; 0 for a byte outside the alphabet."""
        table = np.zeros(256, np.uint8)
        table[self.decode_table] = np.arange(self.size)
        return _frozen(table)

    @cached_property
    def decode_table(self) -> np.ndarray:
        """Returns the byte of every symbol, uint8 [V]."""
        return _frozen(np.frombuffer(self.symbols, np.uint8))

    def encode(self, data: np.ndarray | bytes) -> np.ndarray:
        """Returns the symbols of a text.

        Args:
          data: uint8 [N].

        Returns:
          uint8 [N]; for kind `bytes`, `data` itself.

        Raises:
          UserError: the text has a byte that is not in the alphabet.
        """
        array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        if self.kind == "bytes":
            return array
        is_known = np.zeros(256, bool)
        is_known[self.decode_table] = True
        for begin, part in chunks(array):
            known = is_known[part]
            if not known.all():
                offset = begin + int(known.argmin())
                raise UserError(
                    f"byte {array[offset]:#04x} at offset {offset} is not in the alphabet of "
                    f"{self.size} bytes: leave it out of the text, or train with "
                    f"model.alphabet=bytes, which knows every byte"
                )
        return self.encode_table[array]

    def decode(self, symbols: np.ndarray | Sequence[int]) -> bytes:
        """Returns the bytes of symbols [N] of any integer dtype."""
        return self.decode_table[np.asarray(symbols, np.intp)].tobytes()

    def to_json(self) -> dict[str, Any]:
        """Returns the alphabet as plain JSON values."""
        return {"kind": self.kind, "symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Makes an alphabet from the form of `to_json`.

        Raises:
          ValueError: the symbols are not different bytes in ascending order.
        """
        kind, symbols = values["kind"], list(values["symbols"])
        is_whole = kind == "corpus" or (kind == "bytes" and len(symbols) == 256)
        if not symbols or symbols != sorted(set(bytes(symbols))) or not is_whole:
            raise ValueError("its alphabet is not one of different bytes in ascending order")
        return cls(kind, bytes(symbols))


def _frozen(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False
    return table
