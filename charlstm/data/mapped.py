"""Reading a file mapped into memory without keeping it there.

The pages of a mapped file that were read count as this process's memory until the system wants
them back. A text may be larger than all memory, so whoever reads much of it says when it is done;
what was read stays in the system's own cache of the file.
"""

import mmap
from collections.abc import Iterator

import numpy as np

CHUNK_BYTES = 2**24


def release(data: np.ndarray) -> None:
    """Gives back the memory that reading a mapped array took; nothing for another array."""
    base = data
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(data: np.ndarray, size: int = CHUNK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of an array one after the other, each given back when the next is asked for.

    Yields:
      Where the part begins, and the part, [at most size].
    """
    for start in range(0, len(data), size):
        yield start, data[start : start + size]
        release(data)
