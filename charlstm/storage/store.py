"""A folder of objects in an object store: listed, read, written, with patience."""

import contextlib
import dataclasses
import errno
import functools
import logging as standard_logging
import os
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from charlstm.errors import UserError
from charlstm.storage.failures import StoreError, failure, is_transient
from charlstm.storage.patience import SECONDS_OF_PATIENCE
from charlstm.storage.schemes import GOOGLE, SCHEMES

T = TypeVar("T")

_MOST_SECONDS_BETWEEN_TRIES = 10.0
_AT_ONCE = 8  # transfers


@dataclasses.dataclass(frozen=True)
class Entry:
    """Describes one object.

    Attributes:
      size: in bytes.
      version: a text that changes with the content.
    """

    size: int
    version: str


class Store:
    """The objects below an address; names are relative to it, with slashes.

    Requests that fail because the network or the store is away are made again, less and less often.

    Args:
      address: such as gs://BUCKET/runs/mine.

    Attributes:
      patience: the seconds for which a request is tried again.
      is_closing: once it is set, nothing is tried again.

    Raises:
      UserError: what speaks to such a store is not installed.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self.patience = SECONDS_OF_PATIENCE
        self.is_closing = threading.Event()
        self._files, self._root = _connect(self.address)
        self._away_since: float | None = None
        self._telling = threading.Lock()

    def find(self, below: str = "") -> dict[str, Entry]:
        """Returns all objects below a folder, by their names in this store.

        Raises:
          StoreError: the store refuses it, or cannot be reached. All methods raise it.
        """
        listed = self._try(lambda: self._files.find(self._path(below), detail=True), below)
        return {
            name.removeprefix(f"{self._root}/"): Entry(int(info["size"]), _version(info))
            for name, info in listed.items()
            if info.get("type") == "file" and not name.endswith("/")
        }

    def find_one(self, name: str) -> dict[str, Entry]:
        """Returns an object by its name; empty if there is none of that name."""

        def find() -> dict[str, Entry]:
            try:
                info = self._files.info(self._path(name))
            except FileNotFoundError:
                return {}
            is_file = info.get("type") == "file"
            return {name: Entry(int(info.get("size") or 0), _version(info))} if is_file else {}

        return self._try(find, name)

    def find_top(self) -> list[str]:
        """Returns the names of the objects that are in no folder."""

        def find() -> list[str]:
            try:
                return [
                    path.rpartition("/")[2] for path in self._files.ls(self._root, detail=False)
                ]
            except FileNotFoundError:  # nothing has been written yet
                return []

        return self._try(find, "")

    def read(self, name: str) -> bytes:
        """Returns the content of an object.

        Raises:
          FileNotFoundError: there is none of that name.
        """
        return self._try(lambda: self._files.cat_file(self._path(name)), name, missing=True)

    def pieces(self, name: str, start: int, size: int, most: int) -> Iterator[bytes]:
        """Yields the content of an object from an offset on.

        Args:
          name: of the object.
          start: the offset, in bytes.
          size: of the object; 0 if it is unknown: then it comes in one piece.
          most: bytes in a piece.

        Raises:
          StoreError: the store does not give what it has listed; and see `find`.
        """
        if not size:
            yield self._try(lambda: self._files.cat_file(self._path(name)), name)
            return
        while start < size:
            stop = min(size, start + most)
            read = functools.partial(self._files.cat_file, self._path(name), start=start, end=stop)
            piece = self._try(read, name)
            if len(piece) == size:  # of a web server that knows no ranges
                yield piece[start:]
                return
            if len(piece) != stop - start:
                reason = f"{len(piece)} bytes came where {stop - start} were asked for"
                raise StoreError(f"{self.address}/{name}: {reason}: try again", reason)
            yield piece
            start = stop

    def write(self, name: str, content: bytes) -> None:
        """Writes an object; whoever reads it meanwhile gets the old or the new one, whole."""
        self._try(lambda: self._files.pipe_file(self._path(name), content), name)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object if there is none of that name; returns False if there is one."""

        def create() -> bool:
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except OSError as error:
                if is_transient(error):
                    raise
                try:  # s3fs names the reason differently from store to store
                    there = self._files.cat_file(self._path(name))
                except FileNotFoundError:
                    raise error from None
                return bool(there == content)  # our own, if the answer to an earlier try was lost
            return True

        return self._try(create, name)

    def upload(self, files: Mapping[str, Path]) -> None:
        """Writes objects with the contents of files, several at a time."""

        def upload(name: str) -> None:
            self._try(lambda: self._files.put_file(str(files[name]), self._path(name)), name)

        in_parallel(upload, files)

    def download(self, files: Mapping[str, Path]) -> None:
        """Writes files with the contents of objects, several at a time; a file is whole or absent.

        Raises:
          FileNotFoundError: an object is not there any more.
          OSError: a file cannot be written.
        """

        def download(name: str) -> None:
            path = files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")

            def get() -> None:
                self._files.get_file(self._path(name), str(draft))

            try:
                self._try(get, name, missing=True)
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)

        in_parallel(download, files)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; those that are not there are no error."""

        def delete(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._try(lambda: self._files.rm_file(self._path(name)), name, missing=True)

        in_parallel(delete, names)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _try(self, request: Callable[[], T], name: str, missing: bool = False) -> T:
        """Returns the result of a request, after as many tries as there is patience for.

        Args:
          request: what to do.
          name: of the object, for messages.
          missing: True if the caller wants to see a `FileNotFoundError`.
        """
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                result = request()
            except Exception as error:
                if missing and isinstance(error, FileNotFoundError):
                    raise
                if isinstance(error, OSError) and _is_local(error):
                    raise
                left = began + self.patience - time.monotonic()
                if not is_transient(error) or left <= 0:
                    logging.debug("a request to %s failed", self.address, exc_info=error)
                    raise failure(error, self.address, name) from error
                self._tell_away(failure(error, self.address, name))
                if self.is_closing.wait(min(pause, max(left, 0.1))):
                    raise failure(error, self.address, name) from error
                pause = min(2 * pause, _MOST_SECONDS_BETWEEN_TRIES)
            else:
                self._tell_back()
                return result

    def _tell_away(self, reason: StoreError) -> None:
        """Logs once, whatever requests are under way, that the store is away."""
        with self._telling:
            if self._away_since is None:
                self._away_since = time.monotonic()
                logging.warning("%s; trying again", reason)

    def _tell_back(self) -> None:
        with self._telling:
            if self._away_since is not None:
                seconds = time.monotonic() - self._away_since
                logging.info("%s is reached again after %.0f s", self.address, seconds)
                self._away_since = None


def _connect(address: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it."""
    scheme = SCHEMES[address.partition(":")[0]]
    # Without this, gcsfs asks another service, which has to be enabled, what kind a bucket is.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec

        # The libraries log what they then raise.
        for name in ("gcsfs", "s3fs", "fsspec", "aiobotocore", "botocore"):
            standard_logging.getLogger(name).setLevel(standard_logging.CRITICAL)
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        if scheme is GOOGLE:
            import aiohttp

            # A store that falls silent is away; gcsfs would wait for it without end.
            silence = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
            options["requests_timeout"] = silence
        files, root = fsspec.url_to_fs(address, **options)
        # gcsfs tries again by itself, for half a minute and without a word.
        for name in ("_request", "_get_file_request"):
            once = getattr(getattr(type(files), name, None), "__wrapped__", None)
            if once is not None:
                setattr(files, name, types.MethodType(once, files))
        return files, root
    except ImportError as error:
        raise UserError(
            f"{address} needs an extra: pip install 'charlstm[{scheme.extra}]'"
        ) from error
    except Exception as error:  # of many classes
        raise failure(error, address) from error


def _version(info: Mapping[str, Any]) -> str:
    found = [info.get(key) for key in ("etag", "ETag", "md5Hash", "generation", "updated", "mtime")]
    return " ".join(str(value) for value in found if value)


def _is_local(error: OSError) -> bool:
    """Returns True if an error is one of this machine's disk."""
    on_disk = errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE
    return error.errno in on_disk or (error.errno is not None and error.filename is not None)


def in_parallel(do: Callable[[T], None], arguments: Iterable[T]) -> None:
    """Calls a function for all arguments, several at a time; raises the first error."""
    waiting = list(arguments)
    if len(waiting) == 1:
        do(waiting[0])
    elif waiting:
        with ThreadPoolExecutor(min(_AT_ONCE, len(waiting))) as pool:
            list(pool.map(do, waiting))
