"""Declares fields, checks their values against annotations, and reads values from strings."""

import dataclasses
import difflib
import math
import types
import typing
from typing import Any, Literal, TypeVar

from charlstm.errors import UserError

MEANING = "meaning"  # the key of a field's meaning in its metadata

T = TypeVar("T")


def field(default: T, meaning: str) -> T:
    """Declares a field of a section.

    Args:
      default: the value of the field if none is given.
      meaning: what the field sets, in full sentences; it can be read at run time, see
        `charlstm.config.reference`.
    """
    declared: Any = dataclasses.field(default=default, metadata={MEANING: meaning})
    return declared


class Section:
    """Checks every field of a section against its annotation; the base class of all sections."""

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            checked = _checked(f"{self.section_name()}.{name}", getattr(self, name), kind)
            object.__setattr__(self, name, checked)
        self.validate()

    @classmethod
    def section_name(cls) -> str:
        """Returns the section's name in addresses: `model` for `ModelConfig`."""
        return cls.__name__.removesuffix("Config").lower()

    def validate(self) -> None:
        """Raises `UserError` for values that no annotation can rule out."""

    def require(self, name: str, holds: bool, must_be: str) -> None:
        """Raises `UserError` unless the named field's value `holds`."""
        if not holds:
            value = getattr(self, name)
            raise UserError(f"{self.section_name()}.{name}={value!r} must be {must_be}")


def _checked(address: str, value: Any, kind: Any) -> Any:
    """Returns the value, converted if an int is given for a float; raises if it does not fit."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            hint = near(str(value), choices)
            raise UserError(f"{address}={value!r}{hint} must be one of {', '.join(choices)}")
    elif kind is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise UserError(f"{address}={value} must be finite")
        return float(value)
    elif type(value) is not kind:
        raise UserError(f"{address}={value!r} must be of type {kind.__name__}")
    return value


def parsed(address: str, text: str, kind: Any) -> Any:
    """Converts text from a command line to the type of the field."""
    if kind is str or typing.get_origin(kind) in (Literal, types.UnionType):
        return text
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in words:
            return words[text.lower()]
        raise UserError(f"{address}={text} must be true or false")
    try:
        number = float(text)
        if kind is float:
            return number
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
    except ValueError:
        pass
    raise UserError(f"{address}={text} must be {'a whole number' if kind is int else 'a number'}")


def unknown_field(address: str, known: list[str]) -> str:
    """Returns the error message for an unknown address, with similar known ones."""
    section, _, name = address.rpartition(".")
    in_section = [field for field in known if field.startswith(f"{section}.")]
    alike = difflib.get_close_matches(name, [field.split(".")[1] for field in known], n=3)
    alike_fields = [field for field in known if field.split(".")[1] in alike]
    hint = f" (did you mean {' or '.join(alike_fields)}?)" if alike_fields else ""
    if in_section:
        return f"no configuration field {address!r}{hint}; {section} has {', '.join(in_section)}"
    sections = dict.fromkeys(field.split(".")[0] for field in known)
    return f"no configuration field {address!r}{hint}; the sections are {', '.join(sections)}"


def near(word: str, known: typing.Iterable[str]) -> str:
    """Returns a hint that names the known words most like this one; empty if none is alike."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
