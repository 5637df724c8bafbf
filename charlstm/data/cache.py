"""Writes files to the cache folder, which keeps fetched texts and computed tables between runs.

A file in it is complete or absent: it is written under another name and then moved to its place.
So several processes can write the same file at the same time.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Digest:
    """Identifies a sequence of bytes by its size and its sha256 in hex."""

    num_bytes: int
    sha256: str


class Readable(Protocol):
    """Stands for an open binary file."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes; none at the end of the file."""
        ...


def chunks_of(file: Readable) -> Iterator[bytes]:
    """Yields the rest of an open file, `CHUNK_BYTES` at a time."""
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def store(chunks: Iterable[bytes], place: Callable[[Digest], Path]) -> tuple[Path, Digest]:
    """Writes a file to the cache folder, with one chunk in memory at a time.

    Args:
      chunks: the contents. If they cannot be had, the iterator must not raise an `OSError`: that
        is reported as an error of the cache folder.
      place: takes the digest of what was written and returns its path in the cache folder, or
        raises an error to reject it.

    Returns:
      The path of the file and its digest.

    Raises:
      UserError: the folder cannot be written to, or the disk is full.
    """
    folder = cache_folder()
    temporary = folder / f".{uuid.uuid4().hex}.partial"
    sha256 = hashlib.sha256()
    with _names_the_cure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    sha256.update(chunk)
                digest = Digest(file.tell(), sha256.hexdigest())
                file.flush()
                os.fsync(file.fileno())
            path = place(digest)
            if not _holds(path, digest):  # whoever has mapped it need not notice
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path, digest


def _holds(path: Path, digest: Digest) -> bool:
    if not path.is_file() or path.stat().st_size != digest.num_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest.sha256


@contextlib.contextmanager
def _names_the_cure(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write to the cache folder {folder} ({reason}): free space or get access "
            f"to it, or set XDG_CACHE_HOME to another folder"
        ) from error
