"""Reads the file of a text into memory, or maps a large one, and notices when it is changed.

A mapping follows what others do to the file: bytes change under its reader, and reading what a
truncated file has lost ends the process by SIGBUS. So a text is mapped only where it would take
much memory. Pages of a mapped file that were read count as this process's memory until the system
takes them back. A text may be larger than all memory, so code that reads much of it releases it
afterwards. What was read stays in the system's file cache.
"""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CHUNK_BYTES = 2**24

# A larger file is mapped. A device holds a copy of such a text anyway (`streams.resident_bytes`).
LARGEST_IN_MEMORY = 2**28


class TextFile:
    """A file of bytes, as it was when this object was made.

    Args:
      path: of the file.

    Attributes:
      path: the same, absolute.
      state: its size, the time of its last change in nanoseconds, and its inode.

    Raises:
      OSError: it cannot be found.
    """

    def __init__(self, path: Path):
        self.path = path.absolute()
        self.state = self._look()

    @property
    def size(self) -> int:
        """Returns the number of bytes that it had."""
        return self.state[0]

    def read(self) -> np.ndarray:
        """Returns its bytes, uint8 [N], read-only: N is its size, or another if it has changed.

        Raises:
          OSError: it cannot be read.
        """
        if self.size > LARGEST_IN_MEMORY:
            return np.memmap(self.path, np.uint8, mode="r")
        data = np.fromfile(self.path, np.uint8)
        data.flags.writeable = False
        return data

    def has_changed(self, sha256: str) -> bool:
        """Returns True if the file is gone or has other bytes than when it was opened.

        It is read only if its state differs: it may have been touched, or replaced by an equal one.

        Args:
          sha256: of its bytes when it was opened.
        """
        try:
            state = self._look()
            if state == self.state:
                return False
            with self.path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return True
        except OSError:
            return True
        self.state = state
        return False

    def _look(self) -> tuple[int, int, int]:
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns, found.st_ino


def release(data: np.ndarray) -> None:
    """Releases the memory that reading a mapped array took; does nothing for other arrays."""
    base = data
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(data: np.ndarray, size: int = CHUNK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Yields an array part by part, and releases each part when the next one is asked for.

    Yields:
      Where the part begins, and the part, [at most size].
    """
    for start in range(0, len(data), size):
        yield start, data[start : start + size]
        release(data)
