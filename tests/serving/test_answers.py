"""Answers: text, characters cut in two, bytes that are no UTF-8, and log probabilities."""

import itertools
import json

import numpy as np
import pytest

from charlstm.data.corpus import Alphabet
from charlstm.serving.answers import Choice, Whole, usage, whole_answer
from charlstm.serving.sequences import LENGTH, STOP, Piece

BYTES = Alphabet("bytes", bytes(range(256)))
TEXTS = [
    b"plain",
    "aé漢😀z".encode(),
    b"\xff\xc3(\xe6\xbc",  # broken, and cut off at the end
    b"\xc3\xc3\xa9\xf0\x9f\x98a\x80\xed\xa0\x80",
    b"",
]


def pieces_of(text, cuts, finish=LENGTH, **parts):
    """The pieces of a text that is cut, with its rows of `parts`."""
    bounds = [0, *cuts, len(text)]
    for begin, end in itertools.pairwise(bounds):
        own = {name: rows[begin:end] for name, rows in parts.items()}
        yield Piece(text[begin:end], finish=finish if end == len(text) else "", **own)


def told(text, cuts, choice, **parts):
    """The parts of a choice that is handed a text in pieces."""
    return [choice.add(piece) for piece in pieces_of(text, cuts, **parts)]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
@pytest.mark.parametrize("tells", [False, True])
def test_the_text_is_the_same_however_it_comes(text, tells):
    draws = np.random.default_rng(0)
    logits = draws.normal(size=(len(text), 256)).astype(np.float32)
    for _ in range(20):
        cuts = sorted(draws.integers(0, len(text) + 1, 3).tolist())
        cuts = [cut for cut in dict.fromkeys(cuts) if cut < len(text)]
        choice = Choice(0, BYTES, 1 if tells else None, False)
        parts = told(text, cuts, choice, **({"logits": logits} if tells else {}))
        assert "".join(part["text"] for part in parts) == text.decode(errors="replace")
        assert [part["finish_reason"] for part in parts] == [*[None] * len(cuts), "length"]
        if not tells:
            assert all(part["logprobs"] is None for part in parts)
            continue
        # Each byte is told with the text of its character, not before.
        sent, count = "", 0
        for part in parts:
            sent += part["text"]
            count += len(part["logprobs"]["bytes"])
            assert bytes(text[:count]).decode(errors="replace") == sent
        assert count == len(text)


def offsets_by_characters(text):
    """Of each byte, where its character stands in the text: from whole decodings alone."""
    ends = range(1, len(text) + 1)
    return [len(text[:end].decode(errors="replace")) - 1 for end in ends]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_every_byte_has_its_token_its_offset_and_its_probabilities(text):
    draws = np.random.default_rng(1)
    logits = (5 * draws.normal(size=(len(text), 256))).astype(np.float32)
    cells = draws.normal(size=(len(text), 3)).astype(np.float32)
    whole = Whole()
    choice = Choice(0, BYTES, 2, True)
    for part in told(text, [1, 3][: len(text) // 2], choice, logits=logits, cells=cells):
        whole.add(part)
    found = json.loads(whole.json())["logprobs"]
    assert bytes(found["bytes"]) == text
    assert found["tokens"] == [chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}" for byte in text]
    assert found["text_offset"] == offsets_by_characters(text)
    np.testing.assert_allclose(np.reshape(found["cells"], (-1, 3)), np.tanh(cells), atol=5.1e-5)
    normal = logits.astype(np.float64)
    normal -= np.log(np.exp(normal).sum(axis=1, keepdims=True))
    for place, byte in enumerate(text):
        assert found["token_logprobs"][place] == pytest.approx(normal[place, byte], abs=1e-6)
        likeliest = sorted(range(256), key=lambda one: -normal[place, one])[:2]
        names = {
            chr(one) if one < 128 else f"bytes:\\x{one:02x}": normal[place, one]
            for one in {*likeliest, byte}
        }
        assert found["top_logprobs"][place] == pytest.approx(names, abs=1e-6)


def test_the_first_byte_of_a_prompt_has_no_probability():
    logits = np.zeros((2, 256), np.float32)
    choice = Choice(0, BYTES, 0, False)
    first = choice.add(Piece(b"ab", logits, is_prompt=True))["logprobs"]
    assert first["token_logprobs"] == [None, pytest.approx(-np.log(256))]
    assert first["top_logprobs"] == [None, {"b": pytest.approx(-np.log(256))}]
    more = choice.add(Piece(b"cd", logits, is_prompt=True))["logprobs"]
    assert None not in more["token_logprobs"]
    drawn = Choice(0, BYTES, 0, False).add(Piece(b"c", logits[:1], finish=STOP))["logprobs"]
    assert drawn["token_logprobs"] == [pytest.approx(-np.log(256))]


def test_a_prompt_that_is_echoed_comes_first_and_its_last_character_may_go_on():
    for told_too in (None, 0):
        choice = Choice(0, BYTES, told_too, False, prompt="né".encode()[:2])
        logits = np.zeros((1, 256), np.float32)
        parts = [choice.add(Piece(b"\xa9", logits)), choice.add(Piece(b"!", logits, finish=STOP))]
        assert [part["text"] for part in parts] == ["né", "!"]


def test_an_answer_as_a_whole_is_json_of_its_choices():
    draws = np.random.default_rng(2)
    choices = []
    for index, text in enumerate(TEXTS):
        whole = Whole()
        tells = index % 2
        parts = {"logits": draws.normal(size=(len(text), 256)).astype(np.float32)} if tells else {}
        for part in told(text, [], Choice(index, BYTES, 1 if tells else None, False), **parts):
            whole.add(part)
        choices.append(whole)
    found = json.loads(whole_answer({"id": 'quoted "text"'}, choices, usage(3, 4)))
    assert found["id"] == 'quoted "text"'
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert [one["index"] for one in found["choices"]] == list(range(len(TEXTS)))
    for one, text in zip(found["choices"], TEXTS, strict=True):
        assert one["text"] == text.decode(errors="replace") and one["finish_reason"] == "length"
        assert (one["logprobs"] is not None) == one["index"] % 2
        assert one["logprobs"] is None or bytes(one["logprobs"]["bytes"]) == text
