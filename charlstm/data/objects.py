"""Fetches the objects of a text from an object store, or a file from a web server.

They come into the cache folder in pieces, so a fetch that was cut off goes on where it ended. Which
objects they were, in which version, is told by a key; so a text is read once on each machine.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import filelock
from absl import logging
from tqdm import tqdm

from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder
from charlstm.storage.schemes import SCHEMES

PIECE_BYTES = 2**23
SECONDS_UNTIL_ABANDONED = 7 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class Objects:
    """Describes the objects that an address stands for.

    Attributes:
      address: see `find`.
      base: the address of the folder that all objects are in.
      pattern: what the names match that are meant, relative to `base`: a name, or a glob pattern;
        empty for all.
      sizes: of the objects, in bytes, by name relative to `base`, in order of the names.
      key: a hex digest of the address and of the objects' names and versions.
    """

    address: str
    base: str
    pattern: str
    sizes: Mapping[str, int]
    key: str

    @property
    def is_named(self) -> bool:
        """True if the objects are named, one by one or by a pattern; False for a folder."""
        return self.pattern in self.sizes or glob.has_magic(self.pattern)

    def require_unchanged(self) -> None:
        """Raises `UserError` if the objects are not the same any more."""
        if find(self.address).key != self.key:
            raise UserError(
                f"{self.address} has changed while it was fetched: give the same command again"
            )


def find(address: str) -> Objects:
    """Returns the objects that an address stands for.

    Args:
      address: of an object, of a folder, or with a glob pattern in its path.

    Raises:
      UserError: there are none, or the store cannot be reached.
    """
    from charlstm.storage.store import Store

    base, pattern = _split(address)
    is_store = SCHEMES[base.partition("://")[0]].is_store
    has_magic = is_store and glob.has_magic(pattern)
    store = Store(base)
    found = store.find_one(pattern) if pattern else {}  # whatever signs the name has
    if not found:
        found = store.find("" if has_magic else pattern)
        if has_magic:
            regex = re.compile(glob_regex(pattern))
            found = {name: entry for name, entry in found.items() if regex.fullmatch(name)}
    if not found:
        cannot = f"{address} cannot be had: check it in a browser, or get the file another way"
        no_match = f"no object matches {address}: check the bucket, the names and the pattern"
        raise UserError(no_match if is_store else cannot)
    for name in found:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise UserError(f"{base}/{name}: an object of this name has no place in a folder")
    named = sorted((name, entry.size, entry.version) for name, entry in found.items())
    key = hashlib.sha256(json.dumps([address, named]).encode()).hexdigest()
    return Objects(address, base, pattern, {name: size for name, size, _ in named}, key)


def _split(address: str) -> tuple[str, str]:
    """Returns the address of the folder that all objects are in, and what their names match."""
    scheme, _, place = address.partition("://")
    if scheme not in SCHEMES:
        raise UserError(
            f"{address}: no text is read from a {scheme}:// address: give one of "
            f"{', '.join(f'{name}://' for name in SCHEMES)}, or copy it to a file"
        )
    parts = place.split("/")
    depth = max(1, len(parts) - 1)
    if SCHEMES[scheme].is_store:  # of web servers no folder can be listed
        depth = next((place for place, part in enumerate(parts) if glob.has_magic(part)), depth)
    return f"{scheme}://{'/'.join(parts[:depth])}", "/".join(parts[depth:])


def glob_regex(pattern: str) -> str:
    """Returns the regular expression of a glob pattern over names with slashes.

    `*`, `?` and `[…]` stay in one folder, as `glob` has it, and `**` spans folders.
    """
    found = ""
    for part in pattern.split("/"):
        if part == "**":
            found += "(?:[^/]+/)*"
            continue
        for token in re.findall(r"\[!?[^\]]+\]|.", part, re.DOTALL):
            if token == "*":
                found += "[^/]*"
            elif token == "?":
                found += "[^/]"
            elif len(token) > 1:
                inner = token[1:-1].replace("\\", r"\\")
                found += f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
            else:
                found += re.escape(token)
        found += "/"
    return found.removesuffix("/") if not pattern.endswith("**") else f"{found}[^/]+"


@contextlib.contextmanager
def fetched(objects: Objects) -> Iterator[Path]:
    """Gives a folder with the objects in it, which is deleted when the context ends well.

    Raises:
      UserError: they cannot be fetched, or the cache folder has no room.
    """
    folder = cache_folder() / "objects" / objects.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with filelock.FileLock(folder.with_suffix(".lock")):
            _fetch(objects, folder)
            try:
                objects.require_unchanged()
            except UserError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot fetch {objects.base} to {folder.parent} ({error.strerror or error}): free "
            "space or get access to it, or set XDG_CACHE_HOME to another folder"
        ) from error


def _sweep(folder: Path) -> None:
    """Deletes what was begun more than a week ago and never went on."""
    for entry in folder.iterdir():
        if entry.stat().st_mtime > time.time() - SECONDS_UNTIL_ABANDONED:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _fetch(objects: Objects, folder: Path) -> None:
    from charlstm.storage.store import Store, in_parallel

    store = Store(objects.base)
    total = sum(objects.sizes.values())
    number = len(objects.sizes)
    logging.info("fetching %d object(s), %s bytes, from %s", number, f"{total:,}", objects.base)

    with tqdm(total=total, desc="fetching", unit="B", unit_scale=True, disable=None) as bar:

        def fetch(name: str) -> None:
            path = folder / name
            size = objects.sizes[name]
            if path.is_file():
                bar.update(size)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            with part.open("ab" if size else "wb") as file:  # of an unknown size nothing is kept
                bar.update(file.tell())
                for piece in store.pieces(name, file.tell(), size, PIECE_BYTES):
                    file.write(piece)
                    bar.update(len(piece))
            part.rename(path)

        in_parallel(fetch, objects.sizes)
