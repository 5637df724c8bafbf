"""Files that are whole whenever they are read, and the folder for what is cached."""

import os
from pathlib import Path

import platformdirs


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file so that whoever opens it meanwhile sees the old or the new one, whole.

    Args:
      path: the file, there or not.
      content: all of it; text becomes UTF-8, line breaks as they are.

    Raises:
      OSError: it cannot be written, or the disk is full. What was there before is still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Returns the folder of everything cached; it may not exist yet.

    `$XDG_CACHE_HOME/charlstm` or `~/.cache/charlstm` on Linux, the custom of the system elsewhere.
    """
    return platformdirs.user_cache_path("charlstm", appauthor=False)
