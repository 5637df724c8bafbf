"""Texts that are not in UTF-8 as far as NUL bytes show it."""

import codecs

import numpy as np
import pytest

from charlstm.data import encoding
from charlstm.data.encoding import encoding_note

ENGLISH = "The quick brown fox jumps over the lazy dog.\n" * 50
RUSSIAN = "Съешь же ещё этих мягких французских булок.\n" * 50


def note_of(text: bytes) -> str:
    return encoding_note(np.frombuffer(text, np.uint8))


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN], ids=["english", "russian"])
@pytest.mark.parametrize("name", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
def test_wide_text_is_recognised_with_the_command_that_converts_it(text: str, name: str) -> None:
    assert f"looks like {name}" in note_of(text.encode(name))
    assert f"iconv -f {name} -t UTF-8" in note_of(text.encode(name))


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
    ],
)
def test_a_byte_order_mark_names_the_encoding(mark: bytes, name: str) -> None:
    assert f"iconv -f {name} -t UTF-8" in note_of(mark + b"some bytes!!")


def test_nul_bytes_at_no_regular_places_are_counted() -> None:
    note = note_of((ENGLISH + "\0").encode() * 3)
    assert "3 in the 6,753 bytes looked at" in note and "iconv" in note


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, "", "a", "漢字" * 99])
def test_utf8_is_not_remarked_on(text: str) -> None:
    assert note_of(text.encode()) == ""
    assert note_of(codecs.BOM_UTF8 + text.encode()) == ""


def test_of_a_large_text_only_pieces_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "LOOKED_AT", 400)
    monkeypatch.setattr(encoding, "_PIECE_BYTES", 100)
    text = (ENGLISH * 9).encode("UTF-16LE")
    assert "UTF-16LE" in note_of(text)
    holed = b"\0" + b"a" * 997 + b"\0" * 7 + b"b" * 9000
    assert "1 in the 400 bytes looked at" in note_of(holed)
