"""One text: stops, what is held back, and chunks, against a reader of single bytes."""

import numpy as np
import pytest

from charlstm.sampling.settings import Settings
from charlstm.serving.sequences import LENGTH, STOP, Sequence, Wish

SYMBOLS = np.frombuffer(b"abc", np.uint8)
PROMPT = np.array([0, 1, 0], np.uint8)


def text_of(drawn, stops, cuts, **wishes):
    """A text that is handed its symbols in chunks; returns it, its pieces and how many it took."""
    pieces = []
    wish = Wish(PROMPT, Settings(), 0, 0, len(drawn), tuple(stops), **wishes)
    text = Sequence(wish, SYMBOLS, pieces.append)
    every = np.concatenate([PROMPT, drawn, np.full(9, 2, np.uint8)])
    logits = np.arange(3 * len(every), dtype=np.float32).reshape(-1, 3)
    cells = np.arange(64 * len(every), dtype=np.float32).reshape(-1, 64)
    begin, seen = 0, []
    for cut in [*cuts, len(every)]:
        part = slice(begin, cut)
        ended = text.take(every[part], logits[part], cells[part])
        seen.append((min(cut, len(PROMPT) + len(drawn)), sum(len(p.data) for p in made(pieces))))
        begin = cut
        if ended:
            return pieces, seen
    raise AssertionError("it did not end")


def made(pieces):
    return [piece for piece in pieces if not piece.is_prompt]


def by_single_bytes(drawn, stops):
    """The text and why it ends, if its bytes are looked at one by one."""
    text = b""
    for symbol in drawn:
        text += bytes([SYMBOLS[symbol]])
        ending = [stop for stop in stops if text.endswith(stop)]
        if ending:
            return text[: -max(map(len, ending))], STOP
    return text, LENGTH


def test_chunks_change_neither_the_text_nor_why_it_ends():
    draws = np.random.default_rng(0)
    ends = set()
    for _ in range(2000):
        drawn = draws.integers(0, 3, draws.integers(1, 30)).astype(np.uint8)
        stops = [
            bytes(SYMBOLS[draws.integers(0, 3, draws.integers(1, 6))])
            for _ in range(draws.integers(0, 4))
        ]
        size = len(PROMPT) + len(drawn) + 9
        cuts = sorted(set(draws.integers(1, size, draws.integers(0, 8)).tolist()))
        pieces, seen = text_of(drawn, stops, cuts)
        wanted, finish = by_single_bytes(drawn, stops)
        assert b"".join(piece.data for piece in pieces) == wanted
        assert [piece.finish for piece in pieces][-1] == finish
        assert not any(piece.finish for piece in pieces[:-1])
        ends.add(finish)
        # What cannot be the beginning of a stop is not held back.
        every = SYMBOLS[drawn].tobytes()
        for num_read, num_sent in seen[:-1]:
            come = every[: max(0, num_read - len(PROMPT))]
            held = come[num_sent:]
            assert not held or any(stop.startswith(held) for stop in stops)
    assert ends == {STOP, LENGTH}


@pytest.mark.parametrize(
    ("drawn", "stops", "text"),
    [
        ("abcabc", ["abc"], ""),  # at the very first byte
        ("aabcc", ["abcc", "bc"], "aa"),  # overlapping: `bc` is complete first
        ("aabcc", ["bc", "abc"], "a"),  # complete together: the longer one
        ("ababab", ["bb"], "ababab"),
        ("aaab", ["aab"], "a"),  # begins anew within itself
        ("cab", ["ab", "c"], ""),
        ("abc", ["abcabc"], "abc"),  # only the beginning of a stop comes
    ],
)
def test_stops(drawn, stops, text):
    symbols = np.array([b"abc".index(byte) for byte in drawn.encode()], np.uint8)
    stops = [stop.encode() for stop in stops]
    for cuts in ([], [4], [3, 4, 5, 6, 7, 8], [5], [2, 6]):
        pieces, _ = text_of(symbols, stops, cuts)
        assert b"".join(piece.data for piece in pieces) == text.encode()


def test_every_byte_has_its_own_logits_and_cells_however_it_is_held_back():
    drawn = np.array([0, 1, 0, 1, 2, 0, 0, 1], np.uint8)
    for stops in ([], [b"abac"], [b"caab"]):
        for cuts in ([], [1, 2, 4, 5, 6, 7, 9], [3], [7, 8]):
            wishes = {"logits": True, "cells": (5, 9), "of_prompt": True}
            pieces, _ = text_of(drawn, stops, cuts, **wishes)
            told = [piece for piece in pieces if piece.data]
            logits = np.concatenate([piece.logits for piece in told])
            cells = np.concatenate([piece.cells for piece in told])
            text = b"".join(piece.data for piece in told)
            assert [piece.is_prompt for piece in told] == sorted(
                (piece.is_prompt for piece in told), reverse=True
            )
            assert text.startswith(b"aba") and len(logits) == len(cells) == len(text)
            np.testing.assert_array_equal(logits[:, 0], 3 * np.arange(len(text)))
            np.testing.assert_array_equal(cells[:, 1], 64 * np.arange(len(text)) + 1)


def test_no_bytes_to_make_is_an_end_after_the_prompt():
    nothing = np.zeros(0, np.uint8)
    for of_prompt in (False, True):
        pieces, seen = text_of(nothing, [], [1, 2], of_prompt=of_prompt, logits=True)
        assert [piece.finish for piece in made(pieces)] == [LENGTH] and made(pieces)[0].data == b""
        assert len(seen) == 3  # not before all of the prompt was read
        assert sum(len(p.data) for p in pieces if p.is_prompt) == (3 if of_prompt else 0)
