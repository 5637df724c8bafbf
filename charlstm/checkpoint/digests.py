"""Digests of the files of a checkpoint: taken when it is written, compared when it is read."""

import hashlib
import os
from collections.abc import Collection, Mapping
from io import BufferedReader
from pathlib import Path

import xxhash

from charlstm.runtime.files import sync


def seal(folder: Path) -> dict[str, str]:
    """Returns the XXH3-128 in hex of every file below a folder, by relative path.

    When this returns, all of them have reached the disk.
    """
    digests = {}
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = _digest(file)
                os.fsync(file.fileno())
        sync(Path(parent))
    return digests


def damage(folder: Path, digests: Mapping[str, str], items: Collection[str] | None = None) -> str:
    """Returns in a few words how files differ from what was written; empty if they do not.

    Args:
      folder: of the checkpoint.
      digests: of its files, from `seal`.
      items: the names of the items that are looked at; None for all.
    """
    for name, digest in digests.items():
        if items is not None and Path(name).parts[0] not in items:
            continue
        try:
            with (folder / name).open("rb") as file:
                if _digest(file) != digest:
                    return f"{name} is not as it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def of_text(text: str) -> str:
    """Returns the XXH3-128 of a text in hex."""
    return xxhash.xxh3_128_hexdigest(text.encode())


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
