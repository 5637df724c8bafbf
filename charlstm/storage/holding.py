"""Holds the lease of a run folder for a run in training, and sends what changes in its copy.

Each file that has changed is sent again as a whole: every few seconds, and whenever a checkpoint is
committed. Checkpoints themselves are sent by whoever writes them.
"""

import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from charlstm.errors import UserError
from charlstm.storage.layout import CHECKPOINTS
from charlstm.storage.lease import Lease
from charlstm.storage.store import Store, in_parallel

SECONDS_BETWEEN_SENDS = 5.0  # a store takes about one write of an object a second
_BYTES_A_SECOND = 2**20  # that a growing file may cost on average
_MOST_BYTES_IN_MEMORY = 2**26

# Files that stay here, and objects that are not fetched: locks, drafts, what is sent elsewhere.
_STAYS_HERE = re.compile(r"(^|/)\.|^wandb/")


def stays_here(name: str) -> bool:
    """Returns True for files that are of one machine only."""
    return _STAYS_HERE.search(name) is not None


class Hold:
    """The right to write to a run folder in a store, and the thread that sends what changes.

    Args:
      store: of the run folder.
      folder: its copy.
      fail: is told of an error that ended the sending.

    Raises:
      UserError: another run holds the folder, or it cannot be written.
    """

    def __init__(self, store: Store, folder: Path, fail: Callable[[UserError], object]):
        self._store, self._folder, self._fail = store, folder, fail
        self.lease = Lease(Store(store.address))
        self.lease.take()
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of what was sent
        self._not_before: dict[str, float] = {}
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, name="sending", daemon=True)

    def start(self) -> None:
        """Begins to send what changes from now on."""
        self._sent = {name: state for name, _, state in self._files()}
        self._thread.start()

    def send_changed(self) -> None:
        """Sends all files that have changed."""
        self._send(is_patient=False)

    def release(self) -> None:
        """Stops sending, and lets go of the lease."""
        self._stop()
        self.lease.release()

    def abandon(self) -> None:
        """Stops sending and renewing the lease; it expires by itself if the store is away."""
        self._store.is_closing.set()
        self._stop()
        self.lease.abandon()

    def _stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_sending(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SENDS):
            try:
                self._send(is_patient=True)
            except UserError as error:
                self._fail(error)
                return
            except OSError as error:
                logging.debug("the copy in %s cannot be read", self._folder, exc_info=error)

    def _send(self, is_patient: bool) -> None:
        """Sends what has changed; if it `is_patient`, no large file too often."""
        with self._sending:
            now = time.monotonic()
            changed = [
                (name, path, state)
                for name, path, state in self._files()
                if self._sent.get(name) != state
                if not (is_patient and now < self._not_before.get(name, 0.0))
            ]
            if not changed:
                return
            self.lease.require_held()
            in_parallel(self._send_file, changed)
            for name, _, state in changed:
                self._sent[name] = state
                self._not_before[name] = now + state[0] / _BYTES_A_SECOND

    def _send_file(self, changed: tuple[str, Path, tuple[int, int]]) -> None:
        """Sends a file as it was when it was looked at: it may grow meanwhile."""
        name, path, (size, _) = changed
        if size > _MOST_BYTES_IN_MEMORY:  # a trace, which is written once
            self._store.upload({name: path})
            return
        with contextlib.suppress(FileNotFoundError):  # a draft that has got its name
            with path.open("rb") as file:
                content = file.read(size)
            self._store.write(name, content)

    def _files(self) -> Iterator[tuple[str, Path, tuple[int, int]]]:
        """Yields name, path, and size and time of each file that is in no checkpoint."""
        for parent, folders, names in os.walk(self._folder):
            below = Path(parent).relative_to(self._folder)
            if below == Path():
                folders[:] = [name for name in folders if name != CHECKPOINTS]
            for file in names:
                name, path = (below / file).as_posix(), Path(parent, file)
                if not stays_here(name):
                    with contextlib.suppress(OSError):  # a draft that has become a file
                        status = path.stat()
                        if stat.S_ISREG(status.st_mode):
                            yield name, path, (status.st_size, status.st_mtime_ns)
