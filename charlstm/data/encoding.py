"""Recognises texts in UTF-16 or UTF-32, and texts with NUL bytes.

A model of bytes reads them too, but spends half of its context, or more, on NUL bytes.
"""

import codecs

import numpy as np

from charlstm.data.mapped import release

# At most so many bytes are looked at, in pieces from all over a larger text.
LOOKED_AT = 2**24
_PIECE_BYTES = 2**16

_MARKS = {  # the longer ones first: that of UTF-16LE begins that of UTF-32LE
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def encoding_note(text: np.ndarray) -> str:
    """Says in one line, with the cure, that a text is wide or has NUL bytes; empty if it is not.

    Args:
      text: uint8 [N]. If it has more than `LOOKED_AT` bytes, pieces of it are looked at.
    """
    begin = text[:4].tobytes()
    for mark, name in _MARKS.items():
        if begin.startswith(mark):
            return f"the text is in {name}, by its first bytes: {_cure(name)}"
    zeros, looked_at = _zeros(text)
    name = _wide(zeros / max(1, looked_at / 4))
    if name:
        return f"the text looks like {name}, by the places of its NUL bytes: {_cure(name)}"
    if zeros.any():
        return (
            f"the text has NUL bytes, {zeros.sum():,} in the {looked_at:,} bytes looked at: if it "
            f"is in UTF-16, convert it (iconv -f UTF-16 -t UTF-8); if not, is it a text?"
        )
    return ""


def _cure(name: str) -> str:
    return f"convert it (iconv -f {name} -t UTF-8), for a model of bytes learns UTF-8 better"


def _zeros(text: np.ndarray) -> tuple[np.ndarray, int]:
    """Counts NUL bytes by their places modulo 4, int64 [4]; returns also the bytes looked at."""
    starts = np.arange(0, len(text), _PIECE_BYTES)
    if len(text) > LOOKED_AT:
        starts = np.linspace(0, len(text) - _PIECE_BYTES, LOOKED_AT // _PIECE_BYTES).astype(int)
    pieces = [text[start : start + _PIECE_BYTES] for start in starts // 4 * 4]
    places = (np.flatnonzero(piece == 0) % 4 for piece in pieces)
    zeros = sum((np.bincount(found, minlength=4) for found in places), np.zeros(4, np.int64))
    release(text)
    return zeros, sum(map(len, pieces))


def _wide(shares: np.ndarray) -> str:
    """Returns the encoding that has these shares of NUL bytes at the places modulo 4, if one has.

    In UTF-32 two or three of four bytes are nearly always NUL. In UTF-16 one of two is, at the
    least in blanks and line breaks, and the other never.
    """
    if shares[2:].min() > 0.9 and shares[0] < 0.5:
        return "UTF-32LE"
    if shares[:2].min() > 0.9 and shares[3] < 0.5:
        return "UTF-32BE"
    even, odd = shares[0::2].min(), shares[1::2].min()
    if odd > 0.02 and shares[0::2].max() < 0.1 * odd:
        return "UTF-16LE"
    if even > 0.02 and shares[1::2].max() < 0.1 * even:
        return "UTF-16BE"
    return ""
