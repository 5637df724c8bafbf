import gzip
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import load_corpus
from charlstm.errors import UserError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A folder whose visible files, by relative path, are `b"one two three "`."""
    folder = tmp_path / "books"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.txt").write_bytes(b"one ")
    (folder / "b" / "z.txt").write_bytes(b"two ")
    (folder / "c.txt.gz").write_bytes(gzip.compress(b"three "))
    (folder / ".hidden").write_bytes(b"no")
    (folder / ".git" / "config").write_bytes(b"no")
    return folder


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def run_python(program: str, **settings) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, **settings)


@pytest.mark.parametrize("largest_in_memory", [2**28, 100])
def test_file_is_read_where_it_is_and_mapped_if_it_is_large(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, largest_in_memory: int
) -> None:
    monkeypatch.setattr("charlstm.data.mapped.LARGEST_IN_MEMORY", largest_in_memory)
    contents = bytes(range(256)) * 3
    (tmp_path / "book.txt").write_bytes(contents)
    source = open_corpus(str(tmp_path / "book.txt"))
    assert isinstance(source.data, np.memmap) == (len(contents) > largest_in_memory)
    assert source.data.dtype == np.uint8
    assert source.data.tobytes() == contents
    assert source.sha256 == hashlib.sha256(contents).hexdigest()
    assert source.name == "book.txt"
    assert not source.data.flags.writeable
    assert not cache.exists()


def test_a_file_that_is_truncated_after_it_was_opened_reads_as_it_was(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"words " * 5000)
    corpus = load_corpus(str(book), 0.1, 0)
    os.truncate(book, 10)  # reading the rest from a mapping would end the process
    assert corpus.data.tobytes() == b"words " * 5000
    with pytest.raises(UserError, match="was changed or removed"):
        corpus.require_unchanged()


def test_folder_is_its_visible_files_by_relative_path_end_to_end(books: Path) -> None:
    source = open_corpus(str(books))
    assert source.data.tobytes() == b"one two three "
    assert source.sha256 == hashlib.sha256(b"one two three ").hexdigest()


def test_pattern_is_its_files_in_order_end_to_end(books: Path) -> None:
    assert open_corpus(str(books / "**" / "*.txt")).data.tobytes() == b"one two "
    assert open_corpus(str(books / "[b-c]*.gz")).data.tobytes() == b"three "


def test_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_bytes(b"itself")
    (tmp_path / "a1.txt").write_bytes(b"another")
    assert open_corpus(str(tmp_path / "a[1].txt")).data.tobytes() == b"itself"


def test_gzip_file_is_unpacked(tmp_path: Path) -> None:
    contents = os.urandom(3_000_000)
    (tmp_path / "book.gz").write_bytes(gzip.compress(contents))
    source = open_corpus(str(tmp_path / "book.gz"))
    assert source.data.tobytes() == contents


def test_standard_input_is_read_to_its_end(cache: Path) -> None:
    contents = os.urandom(3_000_000)
    program = (
        "from charlstm.data.corpora import open_corpus\n"
        "source = open_corpus('-'); print(len(source.data), source.sha256)"
    )
    done = run_python(program, input=contents, check=True)
    assert done.stdout.decode().split() == ["3000000", hashlib.sha256(contents).hexdigest()]
    [copy] = [path for path in cache.rglob("*") if path.is_file()]
    assert copy.read_bytes() == contents


def test_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[b"through a pipe"])
    writer.start()
    assert open_corpus(str(tmp_path / "pipe")).data.tobytes() == b"through a pipe"
    writer.join()


def test_registered_name_goes_before_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    Path("shakespeare").write_bytes(b"a file")
    assert open_corpus("./shakespeare").data.tobytes() == b"a file"
    with pytest.raises(UserError, match="could not be fetched") as caught:
        open_corpus("shakespeare")
    assert "--corpus=PATH" in one_line(caught)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("shakespear", "did you mean shakespeare"),
        ("nowhere/book.txt", "no corpus, file or folder is named 'nowhere/book.txt'"),
        ("", "no corpus, file or folder is named ''"),
        ("*.nothing", "no file matches '*.nothing'"),
        ("empty.txt", "'empty.txt' is empty"),
        ("empty.gz", "'empty.gz' is empty"),
        ("no_files", "folder 'no_files' has no files"),
        ("only_empty", "'only_empty' is empty"),
        ("text.gz", "'text.gz' is not a whole gzip file"),
        ("half.gz", "'half.gz' is not a whole gzip file"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("empty.gz").write_bytes(gzip.compress(b""))
    Path("no_files/.hidden").mkdir(parents=True)
    Path("only_empty").mkdir()
    Path("only_empty/nothing.txt").touch()
    Path("text.gz").write_bytes(b"plain text")
    Path("half.gz").write_bytes(gzip.compress(os.urandom(1000))[:500])
    with pytest.raises(UserError) as caught:
        open_corpus(spec)
    assert expected in one_line(caught)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("spec", ["secret", "secret/book.txt", "closed.txt"])
def test_unreadable_input_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("closed.txt").write_bytes(b"text")
    Path("closed.txt").chmod(0)
    Path("secret").mkdir(mode=0)
    with pytest.raises(UserError, match="Permission denied") as caught:
        open_corpus(spec)
    assert "permissions" in one_line(caught)


def test_unusable_cache_folder_is_reported_with_the_cure(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=str(tmp_path / "file")) as caught:
        open_corpus(str(books))
    assert "set XDG_CACHE_HOME to another folder" in one_line(caught)


def test_full_disk_is_reported_and_leaves_nothing_behind(books: Path, cache: Path) -> None:
    program = (
        "import resource\n"
        "from charlstm.data.corpora import open_corpus\n"
        "from charlstm.errors import UserError\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))\n"
        f"try: open_corpus({str(books)!r})\n"
        "except UserError as error: print(error)"
    )
    done = run_python(program, check=True)
    assert b"cannot write to the cache folder" in done.stdout
    assert not [path for path in cache.rglob("*") if path.is_file()]
