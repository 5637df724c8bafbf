"""Copies on this machine of run folders in object stores.

A copy lives as long as its process. What a reader needs is fetched into it when it is needed. A run
in training works in its copy, and a thread sends what changes: every few seconds, and before each
checkpoint is committed. Checkpoints are not sent by that thread but by whoever writes them: the
object `metadata/metadata` comes last and is deleted first, so a checkpoint in a store is what has
one.
"""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from absl import logging

from charlstm.errors import UserError
from charlstm.storage.homes import new_home
from charlstm.storage.layout import CHECKPOINTS, COMMIT_FILE
from charlstm.storage.lease import Lease
from charlstm.storage.store import SECONDS_OF_A_RUNS_PATIENCE, Entry, Store

SECONDS_BETWEEN_SENDS = 5.0  # a store takes about one write of an object a second

_STEP = re.compile(rf"(?:{CHECKPOINTS}/)?\d+")
# Files that stay here, and objects that are not fetched: locks, drafts, what is sent elsewhere.
_OWN = re.compile(r"(^|/)\.|^wandb/")


def _is_small(name: str) -> bool:
    """Returns True for objects that every reader gets; others are fetched when they are needed."""
    folder, slash, _ = name.partition("/")
    if name.endswith(f"/{COMMIT_FILE}"):
        return True
    is_deep = name.count("/") > 1
    return not is_deep and not (slash and folder in (CHECKPOINTS, "tensorboard", "profile"))


class Copy:
    """A copy of the folder at an address.

    Args:
      address: such as gs://BUCKET/runs/mine.

    Attributes:
      address: see above.
      folder: the copy; made when there is something in it.
    """

    def __init__(self, address: str):
        self.store = Store(address)  # raises before anything is made
        self.address = self.store.address
        self._home = new_home()
        self.folder = self._home.path / address.rstrip("/").rpartition("/")[2]
        self._fetched: dict[str, Entry] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()  # of sending
        self._lease: Lease | None = None
        self._failure: UserError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, name="sending", daemon=True)

    # Reading.

    def refresh(self) -> None:
        """Fetches what is new: all small files, and the metadata of checkpoints.

        Checkpoints that are not in the store any more are forgotten.
        """
        found = self.store.find()
        wanted = {
            name: entry
            for name, entry in found.items()
            if not _OWN.search(name) and _is_small(name)
        }
        self._fetch({name: e for name, e in wanted.items() if self._fetched.get(name) != e})
        for name in self._fetched.keys() - found.keys():
            if name.endswith(f"/{COMMIT_FILE}"):
                self._forget(name.removesuffix(f"/{COMMIT_FILE}"))

    def fetch(self, folder: str, items: Collection[str] | None) -> None:
        """Fetches a checkpoint, if it is still there.

        Args:
          folder: of the checkpoint, in this one.
          items: the names of its items; None for all.
        """
        found, prefix = self.store.find(folder), f"{folder}/" if folder else ""
        if f"{prefix}{COMMIT_FILE}" not in found:
            self._forget(folder)
            return
        wanted = {"metadata", *(items or [])}
        self._fetch(
            {
                name: entry
                for name, entry in found.items()
                if items is None or name.removeprefix(prefix).split("/")[0] in wanted
                if self._fetched.get(name) != entry or not (self.folder / name).is_file()
            }
        )

    def _fetch(self, entries: dict[str, Entry]) -> None:
        try:
            self.store.download({name: self.folder / name for name in entries})
        except FileNotFoundError:
            # A run has deleted it meanwhile; who reads it finds it missing.
            logging.debug("an object has gone from %s", self.address, exc_info=True)
        except OSError as error:
            raise UserError(
                f"cannot copy {self.address} to {self._home.path} ({error.strerror}): free space, "
                "or set XDG_CACHE_HOME to another folder"
            ) from error
        self._fetched |= {n: e for n, e in entries.items() if (self.folder / n).is_file()}
        for name in entries:  # what is here is as it is there
            with contextlib.suppress(OSError):
                self._sent[name] = _state(self.folder / name)

    def _forget(self, folder: str) -> None:
        shutil.rmtree(self.folder / folder, ignore_errors=True)
        for name in [name for name in self._fetched if name.startswith(f"{folder}/")]:
            del self._fetched[name]

    def thin(self, folder: str) -> None:
        """Deletes the arrays of a checkpoint here; they are in the store."""
        for item in (self.folder / folder).iterdir():
            if item.is_dir() and item.name != COMMIT_FILE.partition("/")[0]:
                shutil.rmtree(item, ignore_errors=True)

    # Writing.

    def hold(self) -> None:
        """Takes the lease of the folder, and begins to send what changes.

        Raises:
          UserError: another run has it.
        """
        lease = Lease(Store(self.address))
        lease.take()
        self._lease = lease
        self.refresh()  # what the run before has written since
        self.store.patience = SECONDS_OF_A_RUNS_PATIENCE
        self._thread.start()

    def release(self) -> None:
        """Sends the rest, and lets go of the lease.

        Raises:
          UserError: the rest could not be sent, which has not been said yet.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._failure is None:
            try:
                self.send_changed()
            finally:
                if self._lease is not None:
                    self._lease.release()
        elif self._lease is not None:
            self._lease.abandon()

    def require_reachable(self) -> None:
        """Makes sure that what changes could be sent so far.

        Raises:
          UserError: it could not, for longer than there is patience.
        """
        if self._failure is not None:
            raise self._failure

    def send(self, files: Mapping[str, Path]) -> None:
        """Sends files now, under the names that are given with them."""
        with self._noticing_failure():
            self.store.upload(files)

    def send_changed(self) -> None:
        """Sends all files that have changed, but for checkpoints."""
        with self._noticing_failure():
            self._send_changed()

    def send_below(self, folder: Path) -> None:
        """Sends all files below a folder of the copy."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.send({path.relative_to(self.folder).as_posix(): path for path in files})

    def commit(self, folder: str) -> None:
        """Sends all files that have changed, then what makes a checkpoint whole."""
        with self._noticing_failure():
            if self._lease is not None:
                self._lease.require_held()
            self._send_changed()
            name = f"{folder}/{COMMIT_FILE}"
            self.store.upload({name: self.folder / name})

    def withdraw(self, folder: str) -> None:
        """Deletes a checkpoint in the store."""
        with self._noticing_failure():
            self.store.delete([f"{folder}/{COMMIT_FILE}"])
            self.store.delete(self.store.find(folder))

    def clear_torn(self, below: str) -> None:
        """Deletes what is left in the store of checkpoints that were never committed."""
        found = self.store.find(below)
        steps: dict[str, list[str]] = {}
        for name in found:
            step = "/".join(name.split("/")[: below.count("/") + 2])
            if _STEP.fullmatch(step):
                steps.setdefault(step, []).append(name)
        for step, names in steps.items():
            if f"{step}/{COMMIT_FILE}" not in found:
                self.store.delete(names)

    def _keep_sending(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SENDS):
            try:
                self._send_changed()
            except UserError as error:
                self._keep(error)
                return
            except OSError as error:
                logging.debug("the copy of %s cannot be read", self.address, exc_info=error)

    def _send_changed(self) -> None:
        with self._lock:
            changed = {}
            for path in self._files():
                name = path.relative_to(self.folder).as_posix()
                with contextlib.suppress(OSError):  # a draft that has become a file
                    state = _state(path)
                    if self._sent.get(name) != state:
                        changed[name] = (path, state)
            self.store.upload({name: path for name, (path, _) in changed.items()})
            self._sent |= {name: state for name, (_, state) in changed.items()}

    def _files(self) -> Iterator[Path]:
        for parent, folders, names in os.walk(self.folder):
            below = Path(parent).relative_to(self.folder).as_posix()
            if below == ".":
                folders[:] = [name for name in folders if name != CHECKPOINTS]
            for name in names:
                if not _OWN.search(name if below == "." else f"{below}/{name}"):
                    yield Path(parent, name)

    @contextlib.contextmanager
    def _noticing_failure(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self._keep(error)
            assert self._failure is not None
            raise self._failure from error

    def _keep(self, error: UserError) -> None:
        """Keeps the copy of what could not be sent, for good."""
        if self._failure is None:
            kept = self._home.keep() / self.folder.name
            self._failure = UserError(
                f"{error}; what could not be sent is in {kept}, and the checkpoints saved before "
                "are intact"
            )


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
