"""The run folder: made, locked, seen by all processes, and its JSON files."""

import contextlib
import datetime
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import jax
from absl import logging

from charlstm.errors import UserError
from charlstm.runtime import coordination
from charlstm.runtime.files import replace_file
from charlstm.storage import paths

LOCK_FILE, HOLDER_FILE = ".lock", ".lock.json"
SECONDS_UNTIL_LOCK_IS_FREE = 10  # a job that was started again may find its predecessor ending
SECONDS_UNTIL_FOLDER_IS_SEEN = 30  # a network's file system may be late


@contextlib.contextmanager
def open_run_folder(folder: Path) -> Iterator[None]:
    """Makes the run folder and holds its lock, in process 0; all processes see the folder.

    The lock ends with the process that holds it, however it ends. It keeps other runs out, and
    nobody who reads.

    Raises:
      UserError: the folder cannot be written, another run is in it, or a process does not see it.
    """
    lock = filelock.FileLock(folder / LOCK_FILE, thread_local=False)

    def make() -> str:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{uuid.uuid4().hex[:12]}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            return (
                f"cannot write to the run folder {folder} ({error.strerror}): choose another "
                "--workdir"
            )
        return _take(lock, folder)

    trouble = coordination.broadcast(make)
    if trouble:
        raise UserError(trouble)
    try:
        _see(folder)
        yield
    finally:
        try:
            if coordination.is_first():
                (folder / HOLDER_FILE).unlink(missing_ok=True)
                paths.release(folder)
        finally:
            lock.release()


def _take(lock: filelock.BaseFileLock, folder: Path) -> str:
    """Takes the lock of a run folder; returns in one line why that was not possible, if so."""
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.info("waiting for the run in %s to end", folder)
            lock.acquire(timeout=SECONDS_UNTIL_LOCK_IS_FREE)
    except filelock.Timeout:
        return (
            f"another run is in {folder} ({_holder(folder)}): let it end, or choose another "
            "--workdir"
        )
    except OSError as error:
        return f"cannot lock the run folder {folder} ({error.strerror}): choose another --workdir"
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    write_json(folder / HOLDER_FILE, holder)
    try:
        paths.hold(folder)
    except UserError as error:
        return str(error)
    return ""


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_FILE).read_bytes())
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "who it is cannot be read"


def _see(folder: Path) -> None:
    """Returns when this process sees the run folder, or has a copy of its own."""
    if not paths.is_shared(folder):
        folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + SECONDS_UNTIL_FOLDER_IS_SEEN
    while not folder.is_dir():
        if time.monotonic() > until:
            raise UserError(
                f"process {jax.process_index()} does not see the run folder {folder.absolute()} "
                "that process 0 has made: choose a --workdir on a file system that all share"
            )
        time.sleep(0.1)


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file of the run folder, in process 0.

    Raises:
      UserError: it could not be written.
    """
    if not coordination.is_first():
        return
    try:
        replace_file(path, json.dumps(values, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"could not write to {path.parent} ({error.strerror}): make room or choose another "
            "--workdir"
        ) from error
