"""The lock of a run folder in an object store.

A lease is an object `.lock.N` that is created only if there is none of that name, and written again
every few seconds. Whoever finds it unchanged for half a minute takes its holder for dead and
creates `.lock.N+1`; of several who try, one succeeds. The highest number holds. No clocks are
compared: a contender only sees whether the object changes.
"""

import dataclasses
import datetime
import json
import os
import re
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from absl import logging

from charlstm.errors import UserError
from charlstm.runtime.process_starts import start_ticks
from charlstm.storage.patience import SECONDS_OF_A_RUNS_PATIENCE, SECONDS_OF_PATIENCE
from charlstm.storage.store import Store

SECONDS_BETWEEN_RENEWALS = 5.0
SECONDS_UNTIL_DEAD = 30.0
SECONDS_UNTIL_FREE = 10.0  # a job that was started again may find its predecessor ending

_NAME = re.compile(r"\.lock\.(\d+)")


class Lease:
    """The right to write to a run folder; held from `take` until `release`.

    Args:
      store: of the run folder.
    """

    def __init__(self, store: Store):
        self._store = store
        self._number = 0
        self._holder = _Holder.this_process()
        self._ended, self._is_lost = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> None:
        """Takes the lease, from a holder that is dead too.

        Raises:
          UserError: another run holds it.
        """
        while not self._try_to_take():
            time.sleep(0.2)
        self._store.patience = SECONDS_OF_A_RUNS_PATIENCE
        self._thread.start()

    def _try_to_take(self) -> bool:
        """Tries once; returns False if another was faster or let go meanwhile."""
        number = self._highest()
        if number:
            self._wait_until_dead(number)
        name, content = f".lock.{number + 1}", self._content()
        if not self._store.create(name, content) or self._highest() != number + 1:
            return False
        self._number = number + 1
        older = [other for other in self._numbers() if other < self._number]
        self._store.delete(f".lock.{other}" for other in older)
        return True

    def _wait_until_dead(self, number: int) -> None:
        """Returns when the holder of a lease is known dead or has let go of it."""
        seen, since, began = b"", time.monotonic(), time.monotonic()
        has_moved = is_told = False
        while True:
            try:
                content = self._store.read(f".lock.{number}")
            except FileNotFoundError:
                return
            holder = _Holder.parse(content)
            if holder.is_dead():
                logging.info("the last run in %s has died (%s)", self._store.address, holder)
                return
            now = time.monotonic()
            if content != seen:
                has_moved = bool(seen)
                seen, since = content, now
            if has_moved and now - began > SECONDS_UNTIL_FREE:
                raise UserError(
                    f"another run is in {self._store.address} ({holder}): let it end, or choose "
                    "another --workdir"
                )
            if now - since > SECONDS_UNTIL_DEAD:
                logging.info("the last run in %s is silent (%s)", self._store.address, holder)
                return
            if not is_told:
                is_told = True
                logging.info("waiting for the run in %s to end (%s)", self._store.address, holder)
            time.sleep(0.5)

    def require_held(self) -> None:
        """Makes sure that no other run has taken the lease over, now or before.

        Raises:
          UserError: one has.
        """
        numbers = self._numbers()
        if self._number not in numbers or max(numbers) > self._number:
            self._is_lost = True
        if self._is_lost:
            raise UserError(
                f"another run has taken over {self._store.address}, since this one could not be "
                f"seen for {SECONDS_UNTIL_DEAD:.0f} s: let that one go on, or end it and give the "
                "same command again"
            )

    def release(self) -> None:
        """Lets go of the lease."""
        self.abandon()
        if self._thread.is_alive():
            self._thread.join()
        self._store.is_closing.clear()
        self._store.patience = SECONDS_OF_PATIENCE
        if self._is_lost:
            return
        try:
            self._store.delete([f".lock.{self._number}"])
        except UserError as error:
            logging.debug("the lease is left to expire: %s", error)

    def abandon(self) -> None:
        """Stops renewing the lease, which expires by itself if the store cannot be reached."""
        self._ended.set()
        self._store.is_closing.set()

    def _renew(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_RENEWALS):
            try:
                self.require_held()
                self._store.write(f".lock.{self._number}", self._content())
            except UserError as error:  # whoever sends something next says it
                logging.debug("the lease is not renewed: %s", error)
                if self._is_lost:
                    return

    def _highest(self) -> int:
        return max(self._numbers(), default=0)

    def _numbers(self) -> set[int]:
        names = map(_NAME.fullmatch, self._store.find_top())
        return {int(found[1]) for found in names if found}

    def _content(self) -> bytes:
        renewed = {"renewal": uuid.uuid4().hex}
        return json.dumps(dataclasses.asdict(self._holder) | renewed).encode()


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Names the process that holds a lease.

    Attributes:
      host, process: its machine's name and its id there.
      since: the time at which it took the lease.
      kernel: the boot and the namespace in which the id is valid; empty if they are unknown.
      started: when the process started, in ticks since the boot.
    """

    host: str
    process: int
    since: str
    kernel: str
    started: str

    @classmethod
    def this_process(cls) -> "_Holder":
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        pid = os.getpid()
        return cls(socket.gethostname(), pid, since, _kernel(), start_ticks(pid))

    @classmethod
    def parse(cls, content: bytes) -> "_Holder":
        try:
            values: dict[str, Any] = json.loads(content)
            return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
        except (ValueError, KeyError, TypeError):
            return cls("an unknown host", 0, "an unknown time", "", "")

    def is_dead(self) -> bool:
        """Returns True if the process ran on this machine and is known to have ended."""
        if not self.kernel or self.kernel != _kernel():
            return False
        return start_ticks(self.process) != self.started

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return ""
