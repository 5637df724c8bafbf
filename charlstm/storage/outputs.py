"""Writes what a command was asked for: whole or not at all, here or in an object store."""

from pathlib import Path

from charlstm.errors import UserError
from charlstm.runtime.files import replace_file
from charlstm.storage import paths


def write(path: Path, content: str | bytes, instead: str = "another --output") -> None:
    """Replaces a file in one step: a reader sees the whole old one or the whole new one.

    Args:
      path: of `paths.local_file`.
      content: all of it; text becomes UTF-8.
      instead: what to choose if it cannot be written.

    Raises:
      UserError: it cannot be written.
    """
    try:
        replace_file(path, content)
        paths.send(path)
    except OSError as error:
        raise UserError(
            f"cannot write {paths.shown(path)} ({error.strerror}): choose {instead}"
        ) from error
