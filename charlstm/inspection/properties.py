"""Computes properties that a cell may follow; each holds, or does not, at each byte of a text."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from charlstm.errors import UserError

# An opening bracket or quote is ignored if it is not closed within this many bytes.
LONGEST_BRACKETS = 2000
LONGEST_QUOTE = 2000

# A line that is a name in capitals (`ROMEO`, `KING LEAR:`), or starts with a name and a colon.
SPEAKER = re.compile(
    rb"^(?:[A-Z][A-Z' .,&-]{0,38}[A-Z.](?=:?\r?$)|[A-Z][A-Za-z0-9_' .&-]{0,39}(?=:\s))",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Property:
    """Holds a property of the N bytes of a text.

    Attributes:
      name: the name on the page.
      meaning: where exactly the property holds, in words.
      holds: bool [N], True where the property holds.
      among: bool [N], True for the bytes that are compared; the others are ignored.
    """

    name: str
    meaning: str
    holds: np.ndarray
    among: np.ndarray


def properties_of(text: np.ndarray, patterns: Sequence[str] = ()) -> list[Property]:
    """Returns the properties to score cells for, and one for each of the user's patterns.

    Args:
      text: uint8 [N].
      patterns: regular expressions, see `matches`.

    Raises:
      UserError: a pattern is not a regular expression.
    """
    data = text.tobytes()
    everywhere = np.ones(len(text), bool)
    letters = _is_in(text, (b"a", b"z"), (b"A", b"Z"))
    late, column = late_in_line(text)
    found = [
        Property(
            "inside quotes",
            "from an opening quote, straight or curly, to the byte before the closing one",
            inside_quotes(data),
            everywhere,
        ),
        Property(
            "inside brackets",
            "from ( or [ to the byte before its counterpart",
            inside_brackets(data, b"([", b")]", LONGEST_BRACKETS),
            everywhere,
        ),
        Property(
            "inside braces",
            "from { to the byte before its }",
            inside_brackets(data, b"{", b"}", len(data)),
            everywhere,
        ),
        Property(
            "late in the line",
            f"more than {column} bytes after the last line break, the median of the text",
            late,
            everywhere,
        ),
        Property(
            "speaker name",
            "a line that is a name in capitals, or a name at the start of a line, before a colon",
            _spans(len(data), (match.span() for match in SPEAKER.finditer(data))),
            everywhere,
        ),
        Property(
            "upper case",
            "A to Z, compared with other letters",
            letters & (text <= ord("Z")),
            letters,
        ),
        Property(
            "end of word",
            "a letter before a byte that is not a letter, compared with other letters",
            letters & ~np.append(letters[1:], False),
            letters,
        ),
    ]
    for pattern in patterns:
        meaning = "matched by the regular expression"
        found.append(Property(f"/{pattern}/", meaning, matches(data, pattern), everywhere))
    return found


def inside_quotes(data: bytes) -> np.ndarray:
    """Returns where a quotation is open: bool [N].

    Straight quotes open and close alternately, and a blank line closes too; “ is closed by ”.
    """
    spans = []
    opened: int | None = None
    for match in re.finditer(rb'"|\n\r?\n', data):
        if match[0] != b'"':
            opened = None
        elif opened is None:
            opened = match.start()
        else:
            if match.start() - opened <= LONGEST_QUOTE:
                spans.append((opened, match.start()))
            opened = None
    curly = re.compile("“[^“”]{0,%d}(?=”)".encode() % LONGEST_QUOTE)
    return _spans(len(data), spans) | _spans(len(data), (m.span() for m in curly.finditer(data)))


def inside_brackets(data: bytes, opening: bytes, closing: bytes, longest: int) -> np.ndarray:
    """Returns where a bracket is open that closes within `longest` bytes: bool [N]."""
    spans = []
    counterparts = dict(zip(closing, opening, strict=True))
    waiting: list[int] = []  # positions of open brackets
    for match in re.finditer(b"[" + re.escape(opening + closing) + b"]", data):
        place, bracket = match.start(), data[match.start()]
        if bracket not in counterparts:
            waiting.append(place)
            continue
        # The nearest counterpart; brackets opened after it were never closed.
        depth = len(waiting) - 1
        while depth >= 0 and place - waiting[depth] <= longest:
            if data[waiting[depth]] == counterparts[bracket]:
                spans.append((waiting[depth], place))
                del waiting[depth:]
                break
            depth -= 1
    return _spans(len(data), spans)


def late_in_line(text: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns which bytes are beyond the median column, bool [N], and that column."""
    places = np.arange(len(text))
    breaks = np.where(text == ord("\n"), places, -1)
    columns = places - np.maximum.accumulate(breaks)
    median = int(np.median(columns))
    return columns > median, median


def matches(data: bytes, pattern: str) -> np.ndarray:
    """Returns which bytes are in a match of a regular expression: bool [N].

    If the expression has groups, the first group counts instead of the match. `^` and `$` match at
    the start and end of every line.

    Raises:
      UserError: the pattern is not a regular expression.
    """
    try:
        compiled = re.compile(pattern.encode(errors="surrogateescape"), re.MULTILINE)
    except re.error as error:
        raise UserError(
            f"--regex={pattern!r} is no regular expression ({error}): see Python's re, and put a "
            "backslash before a character that stands for itself"
        ) from error
    group = 1 if compiled.groups else 0
    return _spans(len(data), (match.span(group) for match in compiled.finditer(data)))


def _spans(num_bytes: int, spans: Iterable[tuple[int, int]]) -> np.ndarray:
    """Returns True from each start up to each stop: bool [N]; spans may be nested."""
    ends = np.array(list(_forward(spans)), np.int64).reshape(-1, 2)
    depth = np.bincount(ends[:, 0], minlength=num_bytes + 1)
    depth -= np.bincount(ends[:, 1], minlength=num_bytes + 1)
    return np.cumsum(depth[:num_bytes]) > 0


def _forward(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return (span for span in spans if span[0] >= 0)  # -1: the group matched nothing


def _is_in(text: np.ndarray, *ranges: tuple[bytes, bytes]) -> np.ndarray:
    inside = [(text >= first[0]) & (text <= last[0]) for first, last in ranges]
    return np.logical_or.reduce(inside)
