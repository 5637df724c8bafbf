"""A corpus: its bytes, how they are split, and the alphabet that maps bytes to symbols."""

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from charlstm.data.corpora import open_corpus
from charlstm.data.mapped import chunks
from charlstm.errors import UserError

SPLITS = ("train", "valid", "test", "all")

_COUNTED_TOGETHER = 2**20  # bytes; counting makes whole numbers of 8 bytes of them


class Bounds(NamedTuple):
    """Where each split starts and stops; train, valid and test follow one another."""

    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]


def split_bounds(num_bytes: int, valid: float, test: float) -> Bounds:
    """Cuts a text into a training part and, behind it, a validation and a test part.

    Args:
      num_bytes: N, of the whole text.
      valid, test: the size of each, as a share of the text (below 1: ⌊share·N⌋ bytes) or as a
        number of bytes (1 or more).

    Raises:
      UserError: a size is neither, or nothing is left to train on.
    """
    sizes = []
    for name, size in (("valid_size", valid), ("test_size", test)):
        if not (0 <= size < 1 or (size >= 1 and float(size).is_integer())):
            raise UserError(
                f"data.{name}={size} must be a share below 1 or a whole number of bytes"
            )
        sizes.append(math.floor(size * num_bytes) if size < 1 else int(size))
    num_train = num_bytes - sum(sizes)
    if num_train < 1:
        raise UserError(
            f"data.valid_size={valid:g} and data.test_size={test:g} leave nothing of {num_bytes} "
            f"bytes to train on: they may take {max(num_bytes - 1, 0)} bytes together, or shares "
            f"that add up to less than 1"
        )
    stops = (num_train, num_train + sizes[0], num_bytes)
    return Bounds((0, stops[0]), (stops[0], stops[1]), (stops[1], stops[2]))


@dataclass(frozen=True)
class Corpus:
    """A text with its splits.

    Attributes:
      name: for people.
      data: uint8 [N], read-only, usually mapped from disk.
      sha256: of all N bytes, in hex.
      bounds: of the splits.
    """

    name: str
    data: np.ndarray
    sha256: str
    bounds: Bounds

    def bounds_of(self, split: str) -> tuple[int, int]:
        """Where `split` (one of `SPLITS`) starts and stops.

        Raises:
          UserError: it has no bytes, or there is no such split.
        """
        if split not in SPLITS:
            raise UserError(f"no split is named {split!r}; the splits are {', '.join(SPLITS)}")
        start, stop = (0, len(self.data)) if split == "all" else getattr(self.bounds, split)
        if start == stop:
            raise UserError(
                f"the {split} split of {self.name} has no bytes: raise data.{split}_size to a "
                f"number of bytes, or to a share that makes a byte or more of its {len(self.data)}"
            )
        return start, stop

    def split(self, name: str) -> np.ndarray:
        """The bytes of a split, uint8 [its size], without a copy; raises as `bounds_of` does."""
        start, stop = self.bounds_of(name)
        return self.data[start:stop]

    def is_utf8(self) -> bool:
        """Whether the whole text is valid UTF-8."""
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
    """Opens what `spec` names (see `charlstm.data.corpora`) and splits it.

    Args:
      spec: which text.
      valid_size, test_size: see `split_bounds`.
      sha256: of the text, if known already; then it is not read through.

    Raises:
      UserError: see `open_corpus` and `split_bounds`.
    """
    source = open_corpus(spec, sha256)
    bounds = split_bounds(len(source.data), valid_size, test_size)
    return Corpus(source.name, source.data, source.sha256, bounds)


@dataclass(frozen=True)
class Alphabet:
    """A table of bytes to symbols 0 … size-1 and back.

    Attributes:
      kind: bytes, all 256 of them, each its own symbol; or corpus, only those of a text.
      symbols: the bytes in ascending order; a byte's place here is its symbol.
    """

    kind: Literal["bytes", "corpus"]
    symbols: bytes

    @classmethod
    def of(cls, kind: Literal["bytes", "corpus"], data: np.ndarray) -> Self:
        """The alphabet of a text, uint8 [N]."""
        if kind == "bytes":
            return cls(kind, bytes(range(256)))
        counts = np.zeros(256, np.int64)
        for _, part in chunks(data, _COUNTED_TOGETHER):
            counts += np.bincount(part, minlength=256)
        return cls(kind, bytes(np.flatnonzero(counts).tolist()))

    @property
    def size(self) -> int:
        """How many symbols there are, V."""
        return len(self.symbols)

    @cached_property
    def encode_table(self) -> np.ndarray:
        """Symbols by byte, uint8 [256]; 0 for a byte that is not in the alphabet."""
        table = np.zeros(256, np.uint8)
        table[self.decode_table] = np.arange(self.size)
        return _frozen(table)

    @cached_property
    def decode_table(self) -> np.ndarray:
        """Bytes by symbol, uint8 [V]."""
        return _frozen(np.frombuffer(self.symbols, np.uint8))

    def encode(self, data: np.ndarray | bytes) -> np.ndarray:
        """Symbols of a text.

        Args:
          data: uint8 [N].

        Returns:
          uint8 [N]; for kind `bytes`, `data` itself.

        Raises:
          UserError: a byte is not in the alphabet.
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
        """The bytes of symbols [N], any whole-number dtype."""
        return self.decode_table[np.asarray(symbols, np.intp)].tobytes()

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"kind": self.kind, "symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(values["kind"], bytes(values["symbols"]))


def _frozen(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False
    return table
