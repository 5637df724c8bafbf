"""Kinds of flags that absl does not have: paths and finite numbers."""

import math
import os
from typing import Any

from absl import flags

from charlstm.errors import UserError

flags.disclaim_key_flags()  # a flag is listed in the help of the command that declares it


def expanded(path: str) -> str:
    """Returns a path with the home folder in place of the `~` or `~USER` that it begins with.

    Raises:
      UserError: there is no such user.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise UserError(f"{path}: no user of that name has a home folder; did you mean ./{path}?")
    return found


def define_path(name: str, default: str | None, meaning: str) -> flags.FlagHolder:
    """Declares a flag whose value is a path; `~` is expanded."""
    return flags.DEFINE(_PathParser(), name, default, meaning, serializer=_AS_TEXT)


def define_number(
    name: str,
    default: float | None,
    meaning: str,
    least: float | None = None,
    most: float | None = None,
) -> flags.FlagHolder:
    """Declares a flag whose value is a finite number, perhaps between bounds."""
    return flags.DEFINE(_FiniteParser(least, most), name, default, meaning, serializer=_AS_TEXT)


class _PathParser(flags.ArgumentParser):
    def parse(self, argument: str) -> str:
        return expanded(argument)


class _FiniteParser(flags.FloatParser):
    def convert(self, argument: Any) -> float:
        number = float(super().convert(argument))
        if not math.isfinite(number):
            raise ValueError("it must be finite")
        return number


_AS_TEXT = flags.ArgumentSerializer()
