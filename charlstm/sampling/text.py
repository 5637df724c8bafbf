"""Symbols as text that can be shown while it is being made."""

import codecs
from collections.abc import Iterable, Iterator


def decode_stream(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yields the UTF-8 text of a stream of bytes, piece by piece.

    A character cut in two by a piece's end waits for its other half; bytes that are no UTF-8
    come out as U+FFFD, one for each broken sequence.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        text = decoder.decode(piece)
        if text:
            yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def printable(data: bytes) -> str:
    """Returns the bytes as text that is safe to print: control characters become U+FFFD too."""
    text = data.decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
