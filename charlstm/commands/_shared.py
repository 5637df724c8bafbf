"""Arguments that several commands take."""

from collections.abc import Sequence
from pathlib import Path

from charlstm.errors import UserError
from charlstm.storage import paths

FIELD_PREFIX = "--config."

overrides: dict[str, str] = {}  # values of the configuration, by address; of this process


def take_overrides(argv: Sequence[str]) -> list[str]:
    """Remembers `--config.…=…` as `overrides`; returns the other arguments."""
    rest, values = split_overrides(argv)
    overrides.update(values)
    return rest


def page_to_write(output: str) -> Path:
    """Returns the path of a page that `--output` names.

    Raises:
      UserError: its folder does not exist.
    """
    try:
        return paths.local_file(output)
    except UserError as error:
        raise UserError(f"--output={error}") from error


def no_more_arguments(argv: Sequence[str]) -> None:
    """Refuses positional arguments.

    Raises:
      UserError: there are some.
    """
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags begin with --")


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Picks `--config.section.field=value` (or the value as the next argument) out of `argv`.

    Returns:
      The other arguments, and the values by their fields' addresses.

    Raises:
      UserError: a field without a value.
    """
    rest: list[str] = []
    values: dict[str, str] = {}
    waiting = iter(argv)
    for argument in waiting:
        dashed = f"-{argument}" if argument.startswith("-config.") else argument
        if not dashed.startswith(FIELD_PREFIX):
            rest.append(argument)
            continue
        address, equals, value = dashed.removeprefix(FIELD_PREFIX).partition("=")
        if not equals:
            following = next(waiting, None)
            if following is None or following.startswith("--"):
                raise UserError(f"{argument} needs a value: {argument}=VALUE")
            value = following
        values[address] = value
    return rest, values
