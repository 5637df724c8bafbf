"""Reads a memory-mapped file without keeping it in memory.

Pages of a mapped file that were read count as this process's memory until the system takes them
back. A text may be larger than all memory, so code that reads much of it releases it afterwards.
What was read stays in the system's file cache.
"""

import mmap
from collections.abc import Iterator

import numpy as np

CHUNK_BYTES = 2**24


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
