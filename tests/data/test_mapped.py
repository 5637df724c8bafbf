"""A text whose file is changed while it is read is noticed."""

import os
from pathlib import Path

import numpy as np
import pytest

from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import Corpus, load_corpus, split_bounds
from charlstm.errors import UserError

TEXT = b"a text of some bytes"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "book.txt").write_bytes(TEXT)
    return tmp_path / "book.txt"


def rewritten(path: Path) -> None:
    path.write_bytes(TEXT[::-1])


def truncated(path: Path) -> None:
    os.truncate(path, 3)


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(TEXT[::-1])
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [rewritten, truncated, replaced, Path.unlink])
def test_a_changed_text_is_noticed_and_named_with_the_cure(book: Path, change) -> None:
    corpus = load_corpus(str(book), 0.1, 0.1)
    corpus.require_unchanged()
    change(book)
    with pytest.raises(UserError) as caught:
        corpus.require_unchanged()
    message = str(caught.value)
    assert str(book) in message and "while the run was reading it" in message
    assert "saved before is intact" in message and "another --workdir" in message
    assert "\n" not in message


def test_a_text_that_was_touched_or_replaced_by_an_equal_one_is_unchanged(book: Path) -> None:
    corpus = load_corpus(str(book), 0.1, 0.1)
    os.utime(book, ns=(0, 0))
    corpus.require_unchanged()
    book.with_name("copy").write_bytes(TEXT)
    os.replace(book.with_name("copy"), book)
    corpus.require_unchanged()
    rewritten(book)
    with pytest.raises(UserError):
        corpus.require_unchanged()


def test_a_text_in_memory_never_changes() -> None:
    data = np.frombuffer(TEXT, np.uint8)
    Corpus("text", data, "", split_bounds(len(data), 0, 0)).require_unchanged()


def test_a_changed_copy_in_the_cache_folder_is_noticed(book: Path, cache: Path) -> None:
    corpus = load_corpus(str(book.parent), 0.1, 0.1)
    corpus.require_unchanged()
    [copy] = cache.rglob("*.bin")
    truncated(copy)
    with pytest.raises(UserError, match=str(copy)):
        corpus.require_unchanged()


def test_a_copy_in_the_cache_folder_is_kept_while_it_is_whole(book: Path, cache: Path) -> None:
    open_corpus(str(book.parent))
    [copy] = cache.rglob("*.bin")
    inode = copy.stat().st_ino
    open_corpus(str(book.parent))
    assert copy.stat().st_ino == inode
    rewritten(copy)
    assert open_corpus(str(book.parent)).data.tobytes() == TEXT
