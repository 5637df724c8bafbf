"""Compressed files and archives are read as the text in them."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from charlstm.data.corpora import open_corpus
from charlstm.errors import UserError

REPOSITORY = Path(__file__).parents[2]
TEXT = b"".join(b"line %d of a text\n" % number for number in range(100_000))

# The text files of an archive are "one two three ", in order of their paths.
MEMBERS = {
    "z/b.txt": b"two ",
    "./a.txt": b"one ",
    "z/c.txt.gz": gzip.compress(b"three "),
    "z/.hidden": b"no",
    "picture.png": b"\x89PNG\r\n\x1a\n\0\0",
    "run/config.json": b"no",
    "run/metrics.jsonl": b"no",
    "more.zip": b"PK\x03\x04 no",
}

pytestmark = pytest.mark.usefixtures("cache")


def zstd(content: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(content)


def tar(members: dict[str, bytes] = MEMBERS) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("z/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "b.txt"
        archive.addfile(link)
    return packed.getvalue()


def zipped(members: dict[str, bytes] = MEMBERS) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z/", b"")
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


COMPRESSIONS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "zst": zstd,
}


def text_of(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    return open_corpus(str(path)).data.tobytes()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_compressed_file_is_unpacked_whatever_its_name(tmp_path: Path, name: str) -> None:
    packed = COMPRESSIONS[name](TEXT)
    assert text_of(tmp_path / f"book.{name}", packed) == TEXT
    assert text_of(tmp_path / "book", packed) == TEXT
    assert text_of(tmp_path / "two.bin", packed + packed) == TEXT + TEXT


@pytest.mark.parametrize("name", ["tar", "tar.gz", "tgz", "tar.xz", "tar.zst", "zip"])
def test_an_archive_is_its_text_files_in_order_of_their_paths(
    tmp_path: Path, cache: Path, name: str, log
) -> None:
    compression = {"tgz": gzip.compress}.get(name, COMPRESSIONS.get(name.rpartition(".")[2]))
    packed = zipped() if name == "zip" else tar()
    packed = compression(packed) if compression else packed
    assert text_of(tmp_path / f"books.{name}", packed) == b"one two three "
    links = "" if name == "zip" else "1 × link, "
    left_out = f"(left out 1 × binary, 1 × hidden, {links}1 × packed, 1 × run folder)"
    assert f"read 3 files {left_out}" in log.messages[-1]
    assert [path.name for path in cache.iterdir()] == ["texts"]  # no temporary files


def test_packed_files_in_a_folder_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.zip").write_bytes(zipped())
    (tmp_path / "books" / "b.xz").write_bytes(lzma.compress(b"four "))
    (tmp_path / "books" / "c.gz").write_bytes(gzip.compress(b"binary \0"))
    assert open_corpus(str(tmp_path / "books")).data.tobytes() == b"one two three four "


def test_a_packed_stream_is_unpacked(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[gzip.compress(TEXT)])
    writer.start()
    assert open_corpus(str(tmp_path / "pipe")).data.tobytes() == TEXT
    writer.join()
    assert len(list(cache.rglob("*.bin"))) == 1


def test_unpacking_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "zeros.tar.gz").write_bytes(gzip.compress(tar({"zeros.txt": b"0" * 100_000_000})))
    program = (
        "import resource\n"
        "from charlstm.data.corpora import open_corpus\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"print(len(open_corpus({str(tmp_path / 'zeros.tar.gz')!r}).data))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    num_bytes, kilobytes = map(int, done.stdout.split())
    assert num_bytes == 100_000_000 and kilobytes < 50_000


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"7z\xbc\xaf\x27\x1c and so on", "7z"),
        (b"Rar!\x1a\x07\x01\x00 and so on", "rar"),
        (b"\x04\x22\x4d\x18 and so on", "lz4"),
        (b"\x1f\x9d and so on", "compress"),
        (gzip.compress(gzip.compress(TEXT)), "gzip"),
    ],
)
def test_what_cannot_be_unpacked_is_refused_in_a_line(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    with pytest.raises(UserError) as caught:
        text_of(tmp_path / "book", content)
    message = str(caught.value)
    assert f"book' holds {kind} data" in message and "unpack it first" in message


def test_zstd_data_without_the_library_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = b"\x28\xb5\x2f\xfd and so on"
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "books").mkdir()
    with pytest.raises(UserError, match=r"book' holds zstd data.*pip install zstandard"):
        text_of(tmp_path / "books" / "book", packed)
    with pytest.raises(UserError, match="pip install zstandard"):  # and nothing else is read
        open_corpus(str(tmp_path / "books"))


@pytest.mark.parametrize("name", [*COMPRESSIONS, "tar", "zip", "tar.gz"])
@pytest.mark.parametrize("damage", ["half", "changed"])
def test_a_damaged_file_is_reported_in_a_line(
    tmp_path: Path, cache: Path, name: str, damage: str
) -> None:
    noise = {"noise.txt": os.urandom(50_000).replace(b"\0", b"1"), "more.txt": b"more"}
    packed = {"tar": tar, "zip": zipped, "tar.gz": lambda content: gzip.compress(tar(content))}.get(
        name, lambda content: COMPRESSIONS[name](content["noise.txt"])
    )(noise)
    if damage == "half":
        packed = packed[: len(packed) // 2]
    elif name == "tar":  # which has checksums of its headers only
        place = packed.index(b"more.txt")
        packed = packed[:place] + b"MORE" + packed[place + 4 :]
    else:
        place = len(packed) // 2
        packed = packed[:place] + bytes(64) + packed[place + 64 :]
    with pytest.raises(UserError) as caught:
        text_of(tmp_path / f"book.{name}", packed)
    message = str(caught.value)
    assert f"book.{name}' is not a whole " in message and "\n" not in message
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["zip", "tar", "bz2", "xz", "zst", "7z"])
def test_a_name_that_its_content_belies_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"not begin like one.*rename it if it is text"):
        text_of(tmp_path / f"book.{name}", b"<html>not found</html>")


def test_an_encrypted_archive_is_reported_as_such(tmp_path: Path) -> None:
    packed = bytearray(zipped({"a.txt": b"text"}))
    for place, mark in ((packed.index(b"PK\x03\x04"), 6), (packed.rindex(b"PK\x01\x02"), 8)):
        packed[place + mark] |= 1  # the flag of encryption
    with pytest.raises(UserError, match="is encrypted, or packed in a way"):
        text_of(tmp_path / "book.zip", bytes(packed))


def test_an_archive_without_text_files_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no files to read \(left out 1 × binary"):
        text_of(tmp_path / "book.zip", zipped({"picture.png": MEMBERS["picture.png"]}))
