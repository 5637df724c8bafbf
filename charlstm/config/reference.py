"""Describes every field of the configuration: its address, type, default and meaning.

`python -m charlstm.config.reference > docs/configuration.md` writes it as Markdown.
"""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal

from charlstm.config.checking import MEANING
from charlstm.config.experiment import Config

TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

MARKDOWN_START = """\
<!-- Written by `python -m charlstm.config.reference > docs/configuration.md`; do not edit. -->

# Configuration

Every field of a configuration, by section. A field is set on the command line by its address:

```
charlstm train --config=quickstart --config.model.hidden_size=512
```

The defaults hold where neither the named configuration nor the command line sets a field.
`charlstm train --config=NAME --print_config` shows the values of a configuration, and
[`charlstm/configs/`](../charlstm/configs) holds the named ones.
"""


@dataclasses.dataclass(frozen=True)
class Field:
    """Describes one field.

    Attributes:
      address: `section.name`.
      type_words: its type in words; empty if it has choices.
      choices: the values that it may have; empty if its type decides.
      default: as it is written on a command line.
      meaning: what it sets; empty if the section does not say.
    """

    address: str
    type_words: str
    choices: tuple[str, ...]
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class SectionFields:
    """Describes one section.

    Attributes:
      name: as in addresses.
      summary: what the section defines, in one sentence.
      fields: in the order of their declaration.
    """

    name: str
    summary: str
    fields: tuple[Field, ...]


def sections() -> list[SectionFields]:
    """Returns the description of every section, in order."""
    return [
        SectionFields(
            name=section.name,
            summary=(inspect.getdoc(section.type) or "").partition("\n")[0],
            fields=tuple(_fields(section.name, section.type)),
        )
        for section in dataclasses.fields(Config)
    ]


def as_text(width: int = 80) -> str:
    """Returns the reference in the form of a command's help, in lines of up to `width` columns."""
    lines = ["The configuration's fields:"]
    for section in sections():
        lines += ["", *_wrapped(f"{section.name}: {section.summary}", "", width)]
        for field in section.fields:
            choices = f"<{'|'.join(field.choices)}>: " if field.choices else ""
            type_words = f"; {field.type_words}" if field.type_words else ""
            lines += _wrapped(f"--config.{field.address}: {choices}{field.meaning}", "  ", width)
            lines += _wrapped(f"(default: '{field.default}'{type_words})", "    ", width)
    return "\n".join(lines)


def as_markdown() -> str:
    """Returns the reference as a Markdown document with one table for each section."""
    parts = [MARKDOWN_START]
    for section in sections():
        lines = [
            f"## {section.name}",
            "",
            section.summary,
            "",
            "| field | type or choices | default | meaning |",
            "|---|---|---|---|",
        ]
        for field in section.fields:
            kinds = ", ".join(f"`{choice}`" for choice in field.choices) or field.type_words
            meaning = _with_code(field.meaning)
            lines.append(f"| `{field.address}` | {kinds} | `{field.default}` | {meaning} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _fields(section: str, kind: Any) -> Iterator[Field]:
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        annotation = types[field.name]
        has_choices = typing.get_origin(annotation) is Literal
        yield Field(
            address=f"{section}.{field.name}",
            type_words="" if has_choices else TYPE_WORDS[annotation],
            choices=typing.get_args(annotation) if has_choices else (),
            default=_as_typed(field.default),
            meaning=field.metadata.get(MEANING, ""),
        )


def _as_typed(value: Any) -> str:
    """Returns a value as one would write it on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0")


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    """Returns the lines of a paragraph; those after the first are indented by two more columns."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _with_code(meaning: str) -> str:
    """Returns Markdown for a meaning, with addresses of fields and their values as code."""
    names = "|".join(section.name for section in dataclasses.fields(Config))
    return re.sub(rf"\b(?:{names})\.\w+(?:=\w+)?", r"`\g<0>`", meaning)


if __name__ == "__main__":
    print(as_markdown(), end="")
