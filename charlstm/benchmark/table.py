"""Formats rows of figures as a Markdown table."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm


class Column(NamedTuple):
    """Describes a column of a table: the key of its value in a row, its heading, its format."""

    key: str
    heading: str
    write: Callable[[Any], str] = str


def markdown_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    """Formats rows as Markdown with aligned columns; a missing value leaves its cell empty."""
    cells = [[column.heading for column in columns]]
    cells += [[_cell(row.get(column.key), column) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: Any, column: Column) -> str:
    return "" if value is None else column.write(value).replace("|", "\\|")


def number(digits: int = 1) -> Callable[[float], str]:
    """Returns a formatter that writes numbers with so many decimal places."""
    return lambda value: f"{value:,.{digits}f}"


def percent(value: float) -> str:
    """Writes a share as a percentage."""
    return f"{value:.1%}"


def ratio(value: float) -> str:
    """Writes a factor: `1.23×`."""
    return f"{value:.2f}×"


def short(value: float) -> str:
    """Writes large numbers in short form: `48.2k`."""
    return tqdm.format_sizeof(value)


def span(values: Sequence[float]) -> str:
    """Writes the lowest and the highest value."""
    return f"{short(values[0])} – {short(values[1])}"
