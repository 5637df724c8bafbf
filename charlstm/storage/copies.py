"""Copies on this machine of run folders in object stores.

A copy lives as long as its process. What a reader needs is fetched into it when it is needed. A run
in training works in its copy and sends what changes, see `holding`. The object `metadata/metadata`
of a checkpoint comes last and is deleted first, so a checkpoint in a store is what has one.
"""

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from charlstm.errors import UserError
from charlstm.storage.holding import Hold, stays_here
from charlstm.storage.homes import new_home
from charlstm.storage.layout import CHECKPOINTS, COMMIT_FILE, mark_of
from charlstm.storage.store import Entry, Store

_MARK = re.compile(rf"({CHECKPOINTS}/)\.(\d+)\.unfinished")
_LARGE = CHECKPOINTS, "tensorboard", "profile"  # fetched only when they are needed


def _is_wanted(name: str, is_for_training: bool) -> bool:
    """Returns True for objects that are always fetched: metadata, figures, samples.

    A run that goes on also gets what hooks have written into folders of folders.
    """
    if name.endswith(f"/{COMMIT_FILE}"):
        return True
    folder, slash, _ = name.partition("/")
    is_near = is_for_training or name.count("/") <= 1
    return is_near and not (slash and folder in _LARGE)


class Copy:
    """A copy of the folder at an address.

    Args:
      address: such as gs://BUCKET/runs/mine.
      is_for_training: True for a run that is going to write to the folder.

    Attributes:
      address: see above.
      folder: the copy; made when there is something in it.
      store: the objects that it is a copy of.
      is_for_training: see above.
    """

    def __init__(self, address: str, is_for_training: bool = False):
        self.store = Store(address)  # raises before anything is made
        self.is_for_training = is_for_training
        self.address = self.store.address
        self._home = new_home()
        self.folder = self._home.path / self.address.rpartition("/")[2]
        self._fetched: dict[str, Entry] = {}
        self._hold: Hold | None = None
        self._failure: UserError | None = None
        self._failure_is_said = False

    @property
    def has_failed(self) -> bool:
        """True if something could not be sent, and the copy is kept for it."""
        return self._failure is not None

    # Reading.

    def refresh(self) -> None:
        """Fetches what is new: all small files, and the metadata of checkpoints.

        Checkpoints that are not in the store any more are forgotten.
        """
        found = self.store.find()
        wanted = {
            name: entry
            for name, entry in found.items()
            if not stays_here(name) and _is_wanted(name, self.is_for_training)
            if self._fetched.get(name) != entry
        }
        # A run may have deleted one of them meanwhile; who reads it finds it missing.
        with contextlib.suppress(FileNotFoundError):
            self._fetch(wanted)
        for name in self._fetched.keys() - found.keys():
            if name.endswith(f"/{COMMIT_FILE}"):
                self._forget(name.removesuffix(f"/{COMMIT_FILE}"))

    def fetch(self, folder: str, items: Collection[str] | None) -> None:
        """Fetches a checkpoint; it is gone from the copy afterwards if it is gone from the store.

        Args:
          folder: of the checkpoint, in this one.
          items: the names of its items; None for all.
        """
        found, prefix = self.store.find(folder), f"{folder}/" if folder else ""
        if f"{prefix}{COMMIT_FILE}" not in found:
            self._forget(folder)
            return
        wanted = {"metadata", *(items or [])}
        try:
            self._fetch(
                {
                    name: entry
                    for name, entry in found.items()
                    if items is None or name.removeprefix(prefix).split("/")[0] in wanted
                    if self._fetched.get(name) != entry or not (self.folder / name).is_file()
                }
            )
        except FileNotFoundError:  # a run has deleted it meanwhile
            self._forget(folder)

    def fetch_file(self, name: str) -> None:
        """Fetches a file; it is gone from the copy afterwards if it is gone from the store."""
        try:
            found = self.store.find_one(name)
            if not found:
                raise FileNotFoundError(name)
            if self._fetched.get(name) != found[name] or not (self.folder / name).is_file():
                self._fetch(found)
        except FileNotFoundError:
            (self.folder / name).unlink(missing_ok=True)

    def _fetch(self, entries: dict[str, Entry]) -> None:
        try:
            self.store.download({name: self.folder / name for name in entries})
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(
                f"cannot copy {self.address} to {self._home.path} ({error.strerror}): free space, "
                "or set XDG_CACHE_HOME to another folder"
            ) from error
        finally:
            is_here = {name: e for name, e in entries.items() if (self.folder / name).is_file()}
            self._fetched |= is_here

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
          UserError: another run has it, or the folder cannot be written.
        """
        hold = Hold(self.store, self.folder, self._keep)
        try:
            self.refresh()  # what the run before has written since
        except BaseException:
            hold.abandon()
            raise
        hold.start()
        self._hold = hold

    def release(self) -> None:
        """Sends the rest, lets go of the lease, and deletes the copy.

        Raises:
          UserError: the rest could not be sent, and nothing has said so yet.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        if self._failure is not None:
            hold.abandon()
            if not self._failure_is_said:
                self.require_reachable()
            return
        try:
            with self._noticing_failure():
                hold.send_changed()
        finally:
            hold.release()
        self._home.end()

    def require_reachable(self) -> None:
        """Makes sure that what changes could be sent so far.

        Raises:
          UserError: it could not, for longer than there is patience.
        """
        if self._failure is not None:
            self._failure_is_said = True
            raise self._failure

    def send(self, files: Mapping[str, Path]) -> None:
        """Sends files now, under the names that are given with them."""
        with self._noticing_failure():
            self.store.upload(files)

    def begin(self, folder: str) -> None:
        """Marks a checkpoint as one that is being written."""
        with self._noticing_failure():
            self.store.write(mark_of(folder), b"")

    def commit(self, folder: str) -> None:
        """Sends all files that have changed, then what makes a checkpoint whole."""
        with self._noticing_failure():
            if self._hold is not None:
                self._hold.send_changed()
                self._hold.lease.require_held()
            name = f"{folder}/{COMMIT_FILE}"
            self.store.upload({name: self.folder / name})
            self.store.delete([mark_of(folder)])

    def withdraw(self, folder: str) -> None:
        """Deletes a checkpoint in the store."""
        self.begin(folder)
        with self._noticing_failure():
            self.store.delete([f"{folder}/{COMMIT_FILE}"])
            self.store.delete(self.store.find(folder))
            self.store.delete([mark_of(folder)])

    def moved(self, folder: str, to: str) -> None:
        """Gives a checkpoint in the store the name that it has got here."""
        files = [path for path in (self.folder / to).rglob("*") if path.is_file()]
        self.send({path.relative_to(self.folder).as_posix(): path for path in files})
        self.withdraw(folder)

    def clear_unfinished(self) -> None:
        """Deletes what is left of checkpoints that a run was writing or deleting when it ended.

        Nothing else is deleted: the folder may hold what others have put there.
        """
        found = self.store.find(CHECKPOINTS)
        for mark in filter(None, map(_MARK.fullmatch, found)):
            step = mark[1] + mark[2]
            if f"{step}/{COMMIT_FILE}" not in found:
                self.store.delete([name for name in found if name.startswith(f"{step}/")])
            self.store.delete([mark[0]])

    @contextlib.contextmanager
    def _noticing_failure(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self._failure_is_said = True
            raise self._keep(error) from error

    def _keep(self, error: UserError) -> UserError:
        """Keeps the copy of what could not be sent, for good; returns what says so."""
        if self._failure is None:
            kept = self._home.keep() / self.folder.name
            self._failure = UserError(
                f"{error}; what could not be sent is in {kept}, which stays until you delete it; "
                "what was saved before is intact"
            )
        return self._failure
