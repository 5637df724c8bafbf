"""Local paths for whatever a user names; what is in an object store has its copy here.

This is the one place that knows whether a path is an address. For a folder that is no copy the
functions below do nothing, or what a file system does anyway.
"""

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from charlstm.errors import UserError
from charlstm.storage.layout import CHECKPOINTS, MODEL_SUFFIX
from charlstm.storage.patience import SECONDS_OF_A_RUNS_PATIENCE
from charlstm.storage.schemes import SCHEMES

if TYPE_CHECKING:
    from charlstm.storage.copies import Copy

# An address, also one that was made a `Path`, which keeps a single slash.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+([^/].*)", re.DOTALL)
_ODD = re.compile(r"[#?*\[\]]|::|(^|/)\.{1,2}(/|$)")  # what libraries take for something else
_IN_RUN = re.compile(rf"(.+)/({CHECKPOINTS}(?:/\d+)?)")

# Of this process. What is read again has the same copy; each run in training has its own.
_for_readers: dict[str, "Copy"] = {}  # by address
_copies: list["Copy"] = []


def is_address(path: str | Path) -> bool:
    """Returns True if a path names something in an object store, or elsewhere in the network."""
    return _ADDRESS.fullmatch(os.fspath(path)) is not None


def absolute(path: str | Path) -> str:
    """Returns an address as it is, and a path from the root, with `~` expanded."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    if found:
        return f"{found[1]}://{found[2].rstrip('/')}"
    return str(Path(os.path.expanduser(path)).absolute())


def local(path: str | Path, *, refreshed: bool = True) -> Path:
    """Returns the local path of a file or folder; for an address that of its copy, to be read.

    Args:
      path: of a run, of a checkpoint, of a model in one file, or of a file to write.
      refreshed: fetch first what small files are new, see `Copy.refresh`.

    Raises:
      UserError: no run can be in such a place, or it cannot be reached.
    """
    for copy, name in _places(Path(path)):
        if copy.is_for_training:  # a run changes it at any moment: read what is in the store
            path = f"{copy.address}/{name}"
    if not is_address(path):
        return Path(os.path.expanduser(path))
    if absolute(path).endswith(MODEL_SUFFIX):
        return local_single(path, refreshed=refreshed)
    address, below = _split(path)
    if address not in _for_readers or _for_readers[address].has_failed:
        _for_readers[address] = _new_copy(address)
    if refreshed:
        _for_readers[address].refresh()
    return _for_readers[address].folder / below


def local_single(path: str | Path, *, refreshed: bool = True) -> Path:
    """Does what `local` does, for one file: what lies beside it is not fetched."""
    if not is_address(path):
        return Path(os.path.expanduser(path))
    folder, _, name = absolute(path).rpartition("/")
    found = local(folder, refreshed=False) / name
    if refreshed:
        for copy, file in _places(found):
            copy.fetch_file(file)
    return found


def local_to_train(path: str | Path) -> Path:
    """Returns the local path of a run folder; for an address that of a copy of its own.

    Raises:
      UserError: as for `local`.
    """
    if not is_address(path):
        return Path(os.path.expanduser(path))
    copy = _new_copy(absolute(path), is_for_training=True)
    copy.refresh()
    copy.store.patience = SECONDS_OF_A_RUNS_PATIENCE  # in every process
    return copy.folder


def _split(path: str | Path) -> tuple[str, str]:
    """Returns the address of a run folder, and what a path names in it: of one run one copy."""
    address = absolute(path)
    in_run = _IN_RUN.fullmatch(address)
    return (in_run[1], in_run[2]) if in_run else (address, "")


def _new_copy(address: str, is_for_training: bool = False) -> "Copy":
    scheme, _, place = address.partition("://")
    if _ODD.search(place):
        raise UserError(
            f"{address}: the address of a run has no #, ?, *, [, ] or ::, and no part . or ..: "
            "choose another name"
        )
    if scheme not in SCHEMES or not SCHEMES[scheme].is_store:
        raise UserError(
            f"{address}: no run can be at a {scheme}:// address: give gs://BUCKET/FOLDER, "
            "s3://BUCKET/FOLDER, or a folder of a mounted file system"
        )
    if "/" not in place:
        raise UserError(f"{address} is a whole bucket: name a folder in it, {address}/runs/mine")
    from charlstm.storage.copies import Copy

    copy = Copy(address, is_for_training)
    _copies.append(copy)
    return copy


def local_file(path: str | Path) -> Path:
    """Returns the local path of a file that is to be written; `send` then sends it.

    Raises:
      UserError: its folder does not exist.
    """
    if is_address(path):
        folder, _, name = absolute(path).rpartition("/")
        found = local(folder, refreshed=False)
        found.mkdir(parents=True, exist_ok=True)
        return found / name
    if not Path(path).parent.is_dir():
        raise UserError(f"{path}: there is no folder {Path(path).parent}; make it first")
    return Path(path)


def shown(text: str | Path) -> str:
    """Returns a path, or a text with paths in it, with the addresses of copies in their place."""
    found = os.fspath(text)
    for copy in _copies:
        found = found.replace(str(copy.folder), copy.address)
    return found


def where_copied(folder: Path) -> str:
    """Returns in words on what disk the copy of a folder is; empty if it is none."""
    return "".join(f" in {copy.folder.parents[1]}" for copy, _ in _places(folder))


def is_shared(folder: Path) -> bool:
    """Returns True if all processes of a run see one folder; False if each has a copy."""
    return not _places(folder)


def hold(folder: Path) -> None:
    """Keeps other runs out of a run folder, and begins to send what changes in its copy.

    Raises:
      UserError: another run is in it, or it cannot be written.
    """
    for copy, _ in _places(folder):
        copy.hold()


def release(folder: Path) -> None:
    """Ends what `hold` began, when the rest has been sent."""
    for copy, _ in _places(folder):
        copy.release()


def refresh(folder: Path) -> None:
    """Fetches what small files are new in a run folder, and the metadata of its checkpoints."""
    for copy, _ in _places(folder):
        copy.refresh()


def be_patient(folder: Path) -> None:
    """Waits for the store of a folder from now on for as long as a run in training does."""
    for copy, _ in _places(folder):
        copy.store.patience = SECONDS_OF_A_RUNS_PATIENCE


def require_reachable(folder: Path) -> None:
    """Raises `UserError` if what has changed in a run folder could not be sent for too long."""
    for copy, _ in _places(folder):
        copy.require_reachable()


def send(path: Path) -> None:
    """Sends a file now."""
    for copy, name in _places(path):
        copy.send({name: path})


def fetch(checkpoint: Path, items: Collection[str] | None = None) -> None:
    """Fetches a checkpoint; it is gone afterwards if it is gone from the store.

    Args:
      checkpoint: its folder.
      items: the names of its items; None for all.
    """
    for copy, name in _places(checkpoint):
        copy.fetch(name, items)


def thin(checkpoint: Path) -> None:
    """Deletes the arrays of a checkpoint from this machine, if they are in a store."""
    for copy, name in _places(checkpoint):
        copy.thin(name)


def begin(checkpoint: Path) -> None:
    """Marks a checkpoint in the store as one that is being written; `commit` ends that."""
    for copy, step in _places(checkpoint):
        copy.begin(step)


def send_part(checkpoint: Path, names: Collection[str]) -> None:
    """Sends files of a checkpoint that is not committed yet, by their names in its folder."""
    for copy, step in _places(checkpoint):
        copy.send({f"{step}/{name}": checkpoint / name for name in names})


def moved(checkpoint: Path, aside: Path) -> None:
    """Does in the store what was done here: a damaged checkpoint has got another name."""
    for copy, step in _places(checkpoint):
        copy.moved(step, aside.relative_to(copy.folder).as_posix())


def commit(checkpoint: Path) -> None:
    """Sends what else has changed in the run folder, then the file that makes a checkpoint whole.

    Raises:
      UserError: another run has taken the run folder over, or the store cannot be reached.
    """
    for copy, step in _places(checkpoint):
        copy.commit(step)


def withdraw(checkpoint: Path) -> None:
    """Deletes a checkpoint from the store."""
    for copy, step in _places(checkpoint):
        copy.withdraw(step)


def clear_unfinished(run: Path) -> None:
    """Deletes what is left in the store of checkpoints that a run did not finish."""
    for copy, _ in _places(run):
        copy.clear_unfinished()


def _places(path: Path) -> list[tuple["Copy", str]]:
    """Returns the copy that a path is in and its name there, if it is in one: one pair or none."""
    for copy in _copies:
        with contextlib.suppress(ValueError):
            name = path.relative_to(copy.folder).as_posix()
            return [(copy, "" if name == "." else name)]
    return []
