"""Files that are whole whenever they are read, and the folder for what is cached."""

import os
import uuid
from pathlib import Path

import platformdirs


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file so that whoever opens it meanwhile sees the old or the new one, whole.

    When this returns, the file survives a loss of power.

    Args:
      path: the file, there or not.
      content: all of it; text becomes UTF-8, line breaks as they are.

    Raises:
      OSError: it cannot be written, or the disk is full. What was there before is still there.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Returns when the content of a file, or the names in a folder, have reached the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Returns the folder of everything cached; it may not exist yet.

    `$XDG_CACHE_HOME/charlstm` or `~/.cache/charlstm` on Linux, the custom of the system elsewhere.
    """
    return platformdirs.user_cache_path("charlstm", appauthor=False)
