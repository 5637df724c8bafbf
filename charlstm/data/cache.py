"""The cache folder: where fetched texts and computed tables stay from run to run.

A file here is whole or absent: it is written under another name and then moved to its place, so
processes that write the same file at the same time all end well.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import platformdirs

from charlstm.errors import UserError

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Digest:
    """What a run of bytes amounts to."""

    num_bytes: int
    sha256: str


def cache_folder() -> Path:
    """The folder of everything cached; it may not exist yet.

    `$XDG_CACHE_HOME/charlstm` or `~/.cache/charlstm` on Linux, the custom of the system elsewhere.
    """
    return platformdirs.user_cache_path("charlstm", appauthor=False)


class Readable(Protocol):
    """An open binary file."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


def chunks_of(file: Readable) -> Iterator[bytes]:
    """The bytes of an open file from where it stands, `CHUNK_BYTES` at a time."""
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def store(chunks: Iterable[bytes], place: Callable[[Digest], Path]) -> tuple[Path, Digest]:
    """Writes a file of the cache folder, one chunk in memory at a time.

    Args:
      chunks: the contents. Trouble in getting them must be raised as something else than
        `OSError`, which is taken for trouble with the cache folder.
      place: given what was written, where in the cache folder it belongs, or raises to reject it.

    Returns:
      The path and what is there.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
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
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path, digest


@contextlib.contextmanager
def _names_the_cure(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write to the cache folder {folder} ({reason}): make room or get access to it, "
            f"or set XDG_CACHE_HOME to another folder"
        ) from error
