import hashlib
import logging
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from charlstm.data import ngrams
from charlstm.data.corpus import Corpus, split_bounds
from charlstm.data.ngrams import (
    NgramLevel,
    cached_ngram_levels,
    describe_position,
    ngram_levels,
    predictions,
)


def bytes_of(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def random_text(seed: int, length: int, letters: bytes) -> bytes:
    """Letters with some structure: each is likely to follow the one before it in the alphabet."""
    generator = np.random.default_rng(seed)
    steps = generator.choice(len(letters), size=length, p=_skewed(len(letters)))
    return bytes(letters[place] for place in np.cumsum(steps) % len(letters))


def _skewed(size: int) -> np.ndarray:
    weights = 0.5 ** np.arange(size)
    return weights / weights.sum()


def reference_distribution(train: bytes, context: bytes) -> list[float]:
    """p(b | context) of all 256 bytes, from the formula, byte by byte."""
    below = reference_distribution(train, context[1:]) if context else [1 / 256] * 256
    followers = Counter(
        train[place + len(context)]
        for place in range(len(train) - len(context))
        if train[place : place + len(context)] == context
    )
    count, types = sum(followers.values()), len(followers)
    if count == 0:
        return below
    return [(followers[byte] + types * below[byte]) / (count + types) for byte in range(256)]


@pytest.mark.parametrize("letters", [b"ab", b"abcd", bytes(range(0, 256, 25))])
def test_predictions_agree_with_the_formula(
    letters: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngrams, "_CHUNK_BYTES", 17)
    train = random_text(0, 300, letters)
    heldout = random_text(1, 60, letters) + b"\xfe" + random_text(2, 20, letters + b"\xfd")
    known: dict[bytes, list[float]] = {}
    orders = enumerate(predictions(bytes_of(train), bytes_of(heldout), 5))
    for order, (probabilities, guesses) in orders:
        for place, byte in enumerate(heldout):
            context = heldout[max(place - order, 0) : place]
            if context not in known:
                known[context] = reference_distribution(train, context)
            expected = known[context]
            np.testing.assert_allclose(probabilities[place], expected[byte], rtol=1e-12)
            np.testing.assert_allclose(expected[guesses[place]], max(expected), rtol=1e-12)


def test_levels_are_the_means_of_the_predictions() -> None:
    train, heldout = (bytes_of(random_text(seed, 400, b"abcdef")) for seed in (3, 4))
    expected = [
        (-np.log2(probabilities).mean(), (guesses == heldout).mean())
        for probabilities, guesses in predictions(train, heldout, 5)
    ]
    levels = ngram_levels(train, heldout)
    assert [level.order for level in levels] == list(range(6))
    assert [(level.bits_per_byte, level.accuracy) for level in levels] == expected
    assert ngram_levels(train, heldout, orders=[1, 3]) == [levels[1], levels[3]]


@pytest.mark.parametrize("context", [b"", b"a", b"abcab", b"zzabc", b"zzzzz"])
def test_probabilities_of_all_bytes_sum_to_one(context: bytes) -> None:
    train = bytes_of(random_text(5, 500, b"abc"))
    sums: dict[int, float] = defaultdict(float)
    for byte in range(256):
        text = bytes_of(context + bytes([byte]))
        for order, (probabilities, _) in enumerate(predictions(train, text, 5)):
            sums[order] += probabilities[-1]
    np.testing.assert_allclose(list(sums.values()), np.ones(6), rtol=1e-12)


def test_case_computed_by_hand() -> None:
    """After `abab`: a and b twice each; `b` followed `a` twice, `a` followed `b` once."""
    train, heldout = bytes_of(b"abab"), bytes_of(b"aba?")
    (p0, guesses0), (p1, guesses1) = (
        (probabilities.copy(), guesses.copy())
        for probabilities, guesses in predictions(train, heldout, 1)
    )
    frequent = (2 + 2 / 256) / (4 + 2)
    never = (0 + 2 / 256) / (4 + 2)
    np.testing.assert_allclose(p0, [frequent, frequent, frequent, never])
    b_after_a, a_after_b = (2 + 1 * frequent) / (2 + 1), (1 + 1 * frequent) / (1 + 1)
    np.testing.assert_allclose(p1, [frequent, b_after_a, a_after_b, (0 + 1 * never) / (2 + 1)])
    assert guesses0.tobytes() == b"aaaa"  # of equals, the smallest
    assert guesses1.tobytes() == b"abab"


def test_text_shorter_than_a_context_has_the_levels_of_its_longest_contexts() -> None:
    levels = ngram_levels(bytes_of(b"ab"), bytes_of(b"ba"))
    assert levels[1].bits_per_byte == levels[5].bits_per_byte
    assert len(ngram_levels(bytes_of(b"a"), bytes_of(b"b"))) == 6


def test_long_texts_are_cut_and_the_levels_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train, heldout = (bytes_of(random_text(seed, 300, b"abcdef")) for seed in (6, 7))
    expected = ngram_levels(train[-100:], heldout[:50])
    monkeypatch.setattr(ngrams, "MAX_FIT_BYTES", 100)
    monkeypatch.setattr(ngrams, "MAX_SCORED_BYTES", 50)
    levels = ngram_levels(train, heldout)
    assert levels == expected
    assert {(level.fit_bytes, level.scored_bytes) for level in levels} == {(100, 50)}


def test_levels_are_counted_once_and_then_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = random_text(8, 1000, b"abcdef")
    bounds = split_bounds(len(text), 0.1, 0.1)
    corpus = Corpus("text", bytes_of(text), hashlib.sha256(text).hexdigest(), bounds)
    expected = ngram_levels(corpus.split("train"), corpus.split("valid"))
    assert cached_ngram_levels(corpus, "valid") == expected
    [file] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]

    with monkeypatch.context() as patch:
        patch.setattr(ngrams, "ngram_levels", lambda *_: pytest.fail("counted again"))
        assert cached_ngram_levels(corpus, "valid") == expected
    assert cached_ngram_levels(corpus, "test") != expected

    file.write_text("[{")  # damaged
    assert cached_ngram_levels(corpus, "valid") == expected

    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert cached_ngram_levels(corpus, "valid") == expected


@pytest.mark.parametrize(
    ("bits_per_byte", "expected"),
    [
        (7.0, "worse than the byte frequencies level (4.75)"),
        (float("nan"), "worse than the byte frequencies level (4.75)"),
        (3.30, "between the bigram (3.62) and the trigram (2.97) level"),
        (3.615, "at the bigram level (3.62)"),
        (2.35, "between the 5-gram (2.40) and the 4-gram (2.30) level"),
        (2.1, "better than the 4-gram level (2.30)"),
    ],
)
def test_position_is_told_in_words(bits_per_byte: float, expected: str) -> None:
    scores = [4.75, 3.62, 2.97, 2.30, 2.40]  # the longest contexts do not always do best
    levels = [NgramLevel(order, score, 0.0, 1, 1) for order, score in enumerate(scores)]
    assert describe_position(bits_per_byte, levels) == expected
