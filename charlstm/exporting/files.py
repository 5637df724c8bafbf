"""Files that are written whole or not at all, here or in an object store."""

from pathlib import Path

from charlstm.errors import UserError
from charlstm.runtime.files import replace_file
from charlstm.storage import paths


def write(path: Path, content: bytes) -> None:
    """Replaces a file in one step.

    Raises:
      UserError: it cannot be written.
    """
    try:
        replace_file(path, content)
        paths.send(path)
    except OSError as error:
        raise UserError(
            f"cannot write {paths.shown(path)} ({error.strerror}): choose another --output"
        ) from error
