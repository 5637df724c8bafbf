import json
from pathlib import Path

import numpy as np
import pytest

from charlstm.data import corpus as corpus_module
from charlstm.data.corpus import Alphabet, Bounds, Corpus, load_corpus, split_bounds
from charlstm.data.mapped import chunks
from charlstm.errors import UserError


def bytes_of(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def corpus_of(text: bytes, valid: float = 0.0, test: float = 0.0) -> Corpus:
    return Corpus("text", bytes_of(text), "", split_bounds(len(text), valid, test))


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        (0.05, 0.05, Bounds((0, 91), (91, 96), (96, 101))),
        (0, 0, Bounds((0, 101), (101, 101), (101, 101))),
        (30, 0.5, Bounds((0, 21), (21, 51), (51, 101))),
        (1, 99, Bounds((0, 1), (1, 2), (2, 101))),
    ],
)
def test_splits_follow_one_another_and_fill_the_text(
    valid: float, test: float, expected: Bounds
) -> None:
    assert split_bounds(101, valid, test) == expected


@pytest.mark.parametrize(
    ("valid", "test"), [(50, 51), (0.5, 51), (0.999, 0.999), (200, 0), (-1, 0), (1.5, 0)]
)
def test_impossible_sizes_are_reported_by_their_fields(valid: float, test: float) -> None:
    with pytest.raises(UserError, match=r"data\.valid_size"):
        split_bounds(101, valid, test)


def test_empty_text_cannot_be_split() -> None:
    with pytest.raises(UserError, match="of 0 bytes"):
        split_bounds(0, 0, 0)


def test_split_is_the_bytes_between_its_bounds() -> None:
    corpus = corpus_of(b"abcdefghij", valid=2, test=0.3)
    parts = {name: corpus.split(name).tobytes() for name in ("train", "valid", "test", "all")}
    assert parts == {"train": b"abcde", "valid": b"fg", "test": b"hij", "all": b"abcdefghij"}


def test_split_without_bytes_is_reported_by_its_field() -> None:
    with pytest.raises(UserError, match=r"data\.valid_size"):
        corpus_of(b"abc").split("valid")
    with pytest.raises(UserError, match="train, valid, test, all"):
        corpus_of(b"abc").split("validation")


def test_load_corpus_opens_and_splits(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"abcdefghij")
    corpus = load_corpus(str(tmp_path / "book.txt"), 0.2, 1)
    assert (corpus.name, corpus.bounds) == ("book.txt", Bounds((0, 7), (7, 9), (9, 10)))
    assert corpus.split("valid").tobytes() == b"hi"


def test_utf8_is_told_from_other_bytes_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "__defaults__", (3,))
    assert corpus_of("naïve œuvre €€€".encode()).is_utf8()
    assert not corpus_of("naïve".encode("latin-1")).is_utf8()
    assert not corpus_of("abc€".encode()[:-1]).is_utf8()


def test_alphabet_of_all_bytes_leaves_every_text_as_it_is() -> None:
    alphabet = Alphabet.of("bytes", bytes_of(b"ab"))
    everything = bytes(range(256))
    assert alphabet.size == 256
    assert alphabet.encode(everything).tobytes() == everything
    assert alphabet.decode(alphabet.encode(everything)) == everything


def test_alphabet_of_a_corpus_is_the_bytes_that_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_COUNTED_TOGETHER", 2)
    alphabet = Alphabet.of("corpus", bytes_of(b"hello\xff\x00"))
    assert alphabet.symbols == b"\x00ehlo\xff"
    assert alphabet.encode(b"hole").tolist() == [2, 4, 3, 1]
    assert alphabet.encode(b"hole").dtype == np.uint8
    assert alphabet.decode([2, 4, 3, 1]) == b"hole"
    np.testing.assert_array_equal(alphabet.encode_table[alphabet.decode_table], np.arange(6))


def test_byte_outside_the_alphabet_is_reported_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "__defaults__", (4,))
    alphabet = Alphabet.of("corpus", bytes_of(b"abc"))
    with pytest.raises(UserError, match=r"byte 0xc3 at offset 6 .*model\.alphabet=bytes"):
        alphabet.encode("abcabcé".encode())


@pytest.mark.parametrize("kind", ["bytes", "corpus"])
def test_alphabet_comes_back_from_json(kind) -> None:
    alphabet = Alphabet.of(kind, bytes_of(b"some text"))
    assert Alphabet.from_json(json.loads(json.dumps(alphabet.to_json()))) == alphabet
