"""Unpacks compressed files and archives, which are recognised by how they begin.

Of an archive the text files are read in order of their paths, by the rules of `folders.py`. A
compressed member is unpacked too; an archive inside an archive is not.
"""

import bz2
import contextlib
import gzip
import importlib
import lzma
import re
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from charlstm.data import folders
from charlstm.data.cache import chunks_of, store
from charlstm.data.failures import unpacking
from charlstm.data.folders import FILE, FOLDER, LINK, NO_FILE, Tally
from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder

HEAD_BYTES = 8192  # in which a NUL byte shows that a file is binary

_BEGINNINGS = {
    "gzip": rb"\x1f\x8b\x08",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "lzma": rb"\]\0\0..(\xff{8}|.{5}\0{3})",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "zip": rb"PK(\x03\x04|\x05\x06)",
    "7z": rb"7z\xbc\xaf\x27\x1c",
    "rar": rb"Rar!\x1a\x07",
    "lz4": rb"\x04\x22\x4d\x18",
    "compress": rb"\x1f\x9d",
}
_SUFFIXES = {
    **{".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".tbz2": "bzip2", ".xz": "xz", ".txz": "xz"},
    **{".zst": "zstd", ".tzst": "zstd", ".zip": "zip", ".tar": "tar", ".lzma": "lzma"},
    **{".7z": "7z", ".rar": "rar", ".lz4": "lz4"},
}
_TAR_BLOCK = 512


def is_packed(path: Path) -> bool:
    """Returns True if a file is packed, or is named as if it were; raises `OSError`."""
    with path.open("rb") as file:
        return bool(_kind_of(file.read(HEAD_BYTES))) or path.suffix.lower() in _SUFFIXES


def texts(path: Path, tally: Tally, *, is_named: bool, name: str = "") -> Iterator[bytes]:
    """Yields the text of a file in chunks, unpacked if it is packed.

    Args:
      path: of the file.
      tally: is told what was read and left out.
      is_named: True if the user named the file itself. Otherwise it is left out if it is binary or
        cannot be unpacked.
      name: of the file in messages; its path if not given.

    Raises:
      UserError: the file cannot be read, is damaged, or cannot be unpacked although it is named.
    """
    name = name or str(path)
    with unpacking(name, _SUFFIXES.get(path.suffix.lower(), "packed")), path.open("rb") as file:
        yield from _texts(name, file, tally, is_named)


def _texts(
    name: str, file: IO[bytes], tally: Tally, is_named: bool, *, is_member: bool = False
) -> Iterator[bytes]:
    """Yields what `texts` does, of an open file that can seek."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    chunks, kind = chunks_of(file), _kind_of(head)
    if not kind and PurePosixPath(name).suffix.lower() in _SUFFIXES:
        raise ValueError("it does not begin like one")
    with contextlib.ExitStack() as stack:
        if kind in _STREAMS:
            head, chunks = _peek(_unpacked(name, kind, file))
            kind = _kind_of(head)
            if kind in _ARCHIVES and not is_member:
                file = stack.enter_context(_spooled(chunks))
        if kind in _ARCHIVES and not is_member:
            for member, content in _ARCHIVES[kind](file, tally):
                yield from _texts(f"{name}/{member}", content, tally, False, is_member=True)
        elif kind and is_named:
            raise UserError(f"{name!r} holds {kind} data, which are not read: unpack it first")
        elif kind:
            tally.left_out[folders.PACKED] += 1
        elif b"\0" in head[:HEAD_BYTES] and not is_named:
            tally.left_out[folders.BINARY] += 1
        else:
            tally.num_read += 1
            yield from chunks


def _kind_of(head: bytes) -> str:
    """Returns how a file that begins like this is packed; nothing if it is not."""
    for kind, beginning in _BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL):
            return kind
    try:  # a tar file begins with a header that has a checksum
        tarfile.TarInfo.frombuf(head[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return ""
    return "tar"


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Returns the first `HEAD_BYTES`, perhaps more, and chunks with these and all that follow."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break

    def whole() -> Iterator[bytes]:
        yield head
        yield from chunks

    return head, whole()


def _unpacked(name: str, kind: str, file: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of a compressed file.

    It turns errors into `UserError` itself, for `store` would take them for its own.
    """
    with unpacking(name, kind):
        yield from _STREAMS[kind](file)


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of all frames; the library's own reader takes a part of one for whole."""
    zstandard = importlib.import_module("zstandard")
    frame = None
    for chunk in iter(lambda: file.read(2**16), b""):
        while chunk:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends before its last frame does")


def _read(open_stream: Callable[[IO[bytes]], Any], file: IO[bytes]) -> Iterator[bytes]:
    with open_stream(file) as opened:
        yield from chunks_of(opened)


_STREAMS: dict[str, Callable[[IO[bytes]], Iterator[bytes]]] = {
    "gzip": partial(_read, gzip.open),
    "bzip2": partial(_read, bz2.open),
    "xz": partial(_read, lzma.open),
    "lzma": partial(_read, lzma.open),
    "zstd": _unzstd,
}


@contextlib.contextmanager
def _spooled(chunks: Iterator[bytes]) -> Iterator[IO[bytes]]:
    """Opens a temporary copy in the cache folder, for archives are not read from front to back."""
    path, _ = store(chunks, lambda _: cache_folder() / f".{uuid.uuid4().hex}.unpacked")
    try:
        with path.open("rb") as file:
            yield file
    finally:
        path.unlink()


def _zip_members(file: IO[bytes], tally: Tally) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        members = {_path(info.filename): info for info in archive.infolist()}

        def kind(info: zipfile.ZipInfo) -> str:
            if stat.S_ISLNK(info.external_attr >> 16):
                return LINK
            return FOLDER if info.is_dir() else FILE

        tree = folders.tree_of({path: kind(info) for path, info in members.items() if path})
        for path in folders.files_of(tree, tally):
            with archive.open(members[path]) as member:
                yield path, member


def _tar_members(file: IO[bytes], tally: Tally) -> Iterator[tuple[str, IO[bytes]]]:
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        members = {_path(info.name): info for info in archive}
        file.seek(archive.offset)
        if file.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):  # tarfile takes damage for the end
            raise tarfile.ReadError("it ends before its last member does")

        def kind(info: tarfile.TarInfo) -> str:
            if info.isdir():
                return FOLDER
            if info.issym() or info.islnk():
                return LINK
            return FILE if info.isreg() else NO_FILE

        tree = folders.tree_of({path: kind(info) for path, info in members.items() if path})
        for path in folders.files_of(tree, tally):
            content = archive.extractfile(members[path])
            assert content is not None  # it is a regular file
            with content:
                yield path, content


_ARCHIVES: dict[str, Callable[[IO[bytes], Tally], Iterator[tuple[str, IO[bytes]]]]] = {
    "zip": _zip_members,
    "tar": _tar_members,
}


def _path(name: str) -> str:
    """Returns the path of a member without `./` or a `/` in front."""
    return "/".join(part for part in PurePosixPath(name).parts if part != "/")
