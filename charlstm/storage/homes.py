"""Folders on this machine that end with their process, in the cache folder."""

import atexit
import contextlib
import os
import shutil
import uuid
from pathlib import Path

import filelock

from charlstm.errors import UserError
from charlstm.runtime.files import cache_folder


def _all_homes() -> Path:
    """Returns the folder that all of them are in."""
    return cache_folder() / "copies"


class Home:
    """A folder that is deleted when its process ends, unless it is kept."""

    def __init__(self) -> None:
        _all_homes().mkdir(parents=True, exist_ok=True)
        self.path = _all_homes() / uuid.uuid4().hex[:12]
        self._lock = filelock.FileLock(self.path.with_suffix(".lock"), thread_local=False)
        self._lock.acquire(timeout=5)
        self.path.mkdir()
        self._is_kept, self._process = False, os.getpid()
        atexit.register(self.end)

    def keep(self) -> Path:
        """Makes sure that the folder outlives the process; returns another path of it."""
        self._is_kept = True
        self.path.with_suffix(".kept").touch()
        kept = cache_folder() / "unsent" / self.path.name
        try:
            kept.parent.mkdir(exist_ok=True)
            kept.symlink_to(self.path, target_is_directory=True)
        except OSError:  # Windows, for most users
            return self.path
        return kept

    def end(self) -> None:
        """Deletes the folder, unless it is kept."""
        if os.getpid() != self._process:  # a fork of it
            return
        self._lock.release()
        if not self._is_kept:
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.with_suffix(".lock").unlink(missing_ok=True)


def new_home() -> Home:
    """Makes a folder of this process; deletes those of processes that were killed.

    Raises:
      UserError: the cache folder cannot be written.
    """
    try:
        _sweep()
        return Home()
    except (OSError, filelock.Timeout) as error:
        raise UserError(
            f"cannot write to the cache folder {_all_homes()} ({error}): free space or get access "
            "to it, or set XDG_CACHE_HOME to another folder"
        ) from error


def _sweep() -> None:
    """Deletes the folders of processes that were killed."""
    for path in _all_homes().glob("*.lock"):
        if path.with_suffix(".kept").exists():
            continue
        lock = filelock.FileLock(path)
        with contextlib.suppress(filelock.Timeout, OSError), lock.acquire(timeout=0):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
