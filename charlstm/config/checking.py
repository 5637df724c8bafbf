"""Declares fields, checks their values against annotations, and reads values from strings."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from charlstm.errors import UserError

MEANING, BOUNDS = "meaning", "bounds"  # keys of a field's metadata

T = TypeVar("T")


class Bound(NamedTuple):
    """A condition on a field's value.

    Attributes:
      holds: returns True for a value that is allowed.
      must_be: completes "the value must be …".
    """

    holds: Callable[[Any], bool]
    must_be: str


ABOVE_0 = Bound(lambda value: value > 0, "above 0")
FRACTION = Bound(lambda value: 0 <= value < 1, "at least 0 and below 1")


def at_least(least: int, name: str = "") -> Bound:
    """Returns the bound of numbers from `least` on, with a name for that value, if it has one."""
    named = f"{least} ({name})" if name else str(least)
    return Bound(lambda value: value >= least, f"{named} or more")


def at_most(most: int) -> Bound:
    """Returns the bound of numbers up to `most`: what a hostile file may not exceed."""
    return Bound(lambda value: value <= most, f"{most} or less")


def field(default: T, meaning: str, *bounds: Bound) -> T:
    """Declares a field of a section.

    Args:
      default: the value of the field if none is given.
      meaning: what the field sets, in full sentences; it can be read at run time, see
        `charlstm.config.reference`.
      bounds: of its values.
    """
    metadata = {MEANING: meaning, BOUNDS: bounds}
    declared: Any = dataclasses.field(default=default, metadata=metadata)
    return declared


class Section:
    """Checks the fields of a section against annotations and bounds; the base of all sections."""

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(type(self))
        for declared in dataclasses.fields(self):  # type: ignore[arg-type]
            name = declared.name
            address = f"{self.section_name()}.{name}"
            value = _checked(address, getattr(self, name), kinds[name])
            for bound in declared.metadata.get(BOUNDS, ()):
                if not bound.holds(value):
                    raise UserError(f"{address}={value!r} must be {bound.must_be}")
            object.__setattr__(self, name, value)

    @classmethod
    def section_name(cls) -> str:
        """Returns the section's name in addresses: `model` for `ModelConfig`."""
        return cls.__name__.removesuffix("Config").lower()


def _checked(address: str, value: Any, kind: Any) -> Any:
    """Returns the value, converted if an int is given for a float; raises if it does not fit."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            hint = near(str(value), choices)
            raise UserError(f"{address}={value!r}{hint} must be one of {', '.join(choices)}")
    elif kind is float and type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:  # of an int
            number = math.inf
        if not math.isfinite(number):
            raise UserError(f"{address}={number} must be finite")
        return number
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
