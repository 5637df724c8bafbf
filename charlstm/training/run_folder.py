"""The run folder: made, seen by all processes, and its JSON files."""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax

from charlstm.errors import UserError
from charlstm.runtime import coordination
from charlstm.runtime.files import replace_file

SECONDS_UNTIL_FOLDER_IS_SEEN = 30  # a network's file system may be late


def make_run_folder(folder: Path) -> None:
    """Makes the run folder, writable, in process 0; makes sure that all processes see it.

    Raises:
      UserError: it cannot be written, or another process does not see it.
    """

    def make() -> str:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            return str(error.strerror)
        return ""

    trouble = coordination.broadcast(make)
    if trouble:
        raise UserError(
            f"cannot write to the run folder {folder} ({trouble}): choose another --workdir"
        )
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
