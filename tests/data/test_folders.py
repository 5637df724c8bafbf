"""Which files a folder, a pattern or an archive stands for."""

import os
from pathlib import Path

import pytest

from charlstm.data.corpora import open_corpus
from charlstm.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def text_of(spec: object) -> bytes:
    return open_corpus(str(spec)).data.tobytes()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder whose text files are `b"one two "`, with all that is left out beside them."""
    folder = tmp_path / "mixed"
    write(
        folder,
        {
            "a.txt": b"one ",
            "z/b.txt": b"two ",
            ".hidden": b"no",
            ".git/config": b"no",
            "runs/mine/config.json": b"no",
            "runs/mine/metrics.jsonl": b"no",
            "runs/mine/samples/100.txt": b"no",
            "runs/begun/config.json": b"no",
            "runs/begun/checkpoints/8/params": b"no",
            "target/CACHEDIR.TAG": b"no",
            "target/out.txt": b"no",
            "__pycache__/a.pyc": b"no",
            "picture.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "rest.7z": b"7z\xbc\xaf\x27\x1c rest",
        },
    )
    (folder / "link").symlink_to(tmp_path)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    return folder


def test_a_folder_leaves_out_what_is_no_text_and_counts_it_in_one_line(mixed: Path, log) -> None:
    assert text_of(mixed) == b"one two "
    [line] = [message for message in log.messages if "left out" in message]
    assert line == (
        f"folder {str(mixed)!r}: read 2 files (left out 1 × binary, 2 × cache, 2 × hidden, "
        "1 × link, 1 × no file, 1 × packed, 2 × run folder)"
    )


def test_links_to_files_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere.txt": b"linked", "books/a.txt": b"first "})
    (tmp_path / "books" / "b.txt").symlink_to(tmp_path / "elsewhere.txt")
    assert text_of(tmp_path / "books") == b"first linked"


def test_the_cache_folder_of_charlstm_is_left_out(tmp_path: Path, cache: Path) -> None:
    write(tmp_path, {"a.txt": b"text"})
    assert text_of(tmp_path) == b"text"
    assert any(cache.rglob("*.bin"))
    assert text_of(tmp_path) == b"text"


def test_a_folder_is_the_same_text_before_and_after_a_run_was_made_in_it(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"text"})
    before = text_of(tmp_path)
    write(
        tmp_path,
        {
            "config.json": b"{}",
            ".lock": b"",
            "about.json": b"{}",
            "metrics.jsonl": b"{}",
            "checkpoints/1/metadata/metadata": b"{}",
            "samples/1.txt": b"sample",
            "report.html": b"page",
        },
    )
    assert text_of(tmp_path) == before
    assert text_of(tmp_path / "*") == before


@pytest.mark.parametrize("mark", ["about.json", ".lock", "metrics.jsonl"])
def test_a_run_that_ended_early_is_left_out(tmp_path: Path, mark: str) -> None:
    write(tmp_path, {"a.txt": b"text", "run/config.json": b"{}", f"run/{mark}": b""})
    assert text_of(tmp_path) == b"text"


def test_a_config_json_alone_makes_no_run_folder(tmp_path: Path) -> None:
    write(tmp_path, {"app/config.json": b"mine"})
    assert text_of(tmp_path) == b"mine"


@pytest.mark.parametrize(
    ("pattern", "kinds"),
    [("runs/*/samples/*", "1 × run folder"), ("*", "2 × hidden"), ("**/*", "1 × binary")],
)
def test_where_all_is_left_out_one_line_says_so(mixed: Path, pattern: str, kinds: str) -> None:
    (mixed / "a.txt").unlink()
    (mixed / "z" / "b.txt").unlink()
    spec = mixed if pattern != "runs/*/samples/*" else mixed / pattern
    with pytest.raises(UserError) as caught:
        open_corpus(str(spec))
    assert kinds in str(caught.value) and "\n" not in str(caught.value)


def test_a_pattern_reads_binary_and_cached_files_that_it_names_and_no_runs(mixed: Path) -> None:
    assert text_of(mixed / "*.png").startswith(b"\x89PNG")
    assert text_of(mixed / "target" / "o*.txt") == b"no"
    assert text_of(mixed / "**" / "*.txt") == b"one notwo "  # of target, not of runs


def test_a_pattern_that_names_a_run_folder_reads_in_it(mixed: Path) -> None:
    assert text_of(mixed / "runs" / "mine" / "samples" / "*.txt") == b"no"


def test_parts_of_a_pattern_that_exist_are_taken_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"d [x]/a.txt": b"a", "d [x]/b[1]/c.txt": b"c", "d x/a.txt": b"no"})
    monkeypatch.chdir(tmp_path)
    assert text_of("d [x]/*.txt") == b"a"
    assert text_of("d [x]/b[1]/*.txt") == b"c"
    assert text_of(tmp_path / "d [x]" / "**" / "*.txt") == b"ac"
    with pytest.raises(UserError, match=r"is named 'd \[x\]/none\.txt'"):
        open_corpus("d [x]/none.txt")


@pytest.mark.parametrize("spec", ["~/a.txt", "~/books", "~/b*/*.txt", "~/more [1]/*.txt"])
def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    write(tmp_path, {"a.txt": b"text", "books/a.txt": b"text", "more [1]/a.txt": b"text"})
    monkeypatch.setenv("HOME", str(tmp_path))
    source = open_corpus(spec)
    assert source.data.tobytes() == b"text" and os.path.isabs(source.path)


def test_a_name_that_is_not_utf8_is_printable_and_its_path_can_be_opened(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    with open(path, "wb") as file:
        file.write(b"text")
    source = open_corpus(os.fsdecode(path))
    assert source.name == "caf\\xe9.txt" and source.source.endswith("/caf\\xe9.txt")
    assert open_corpus(source.path).sha256 == source.sha256
    folder = open_corpus(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9*")))
    assert folder.name.encode().endswith(b"caf\\xe9*")
