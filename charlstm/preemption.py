"""Signals that end a run: noticed at any moment, obeyed at the next good one.

SIGTERM and SIGUSR1 ask for a save and exit code 75, SIGINT for a save and 130. They are noticed by
a thread through a pipe that Python's signal handler writes to, also while the main thread is inside
a compilation or waits for a device. Before the first update there is nothing to save, and the
process ends at once; from then on the loop asks `Watch.requested` between its steps.

This module is imported before anything large, so that a signal is noticed from the first moment.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

EXIT_SAVED = 75  # saved, or nothing to save yet: run me again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_SIGNALS = {
    signal.SIGTERM: EXIT_SAVED,
    signal.SIGUSR1: EXIT_SAVED,
    signal.SIGINT: EXIT_INTERRUPTED,
}
_POLL_SECONDS = 0.25


class Watch:
    """Notices signals from the moment it is made; one for each process.

    Attributes:
      code: the exit code that a signal asked for, in this process or, for process 0 of several, in
        any; None if there was none, and in the processes that do not decide.
      started: whether updates have begun.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.started = False
        self._lock = threading.Lock()
        self._tell: Callable[[int], None] | None = None
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._ends = reader, writer  # kept open
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()

    def tell(self, somebody: Callable[[int], None]) -> None:
        """From now on signals are told to `somebody`, by their exit codes, and not obeyed here."""
        with self._lock:
            self._tell = somebody

    def start(self) -> None:
        """Says that updates begin: from now on a signal waits for the loop to ask for it."""
        with self._lock:
            self.started = True
            code = self.code
        if code is not None:  # whoever heard of it is about to end this process
            time.sleep(10)
            leave_at_once(code)

    def request(self, code: int, leaving: Callable[[], None] | None = None) -> None:
        """Asks for the end with exit code `code`.

        Args:
          code: the first one asked for counts.
          leaving: called before this process ends at once, if it does.
        """
        with self._lock:
            if self.code is not None:
                return
            self.code = code
            at_once = not self.started
        if at_once:
            if leaving is not None:
                leaving()
            leave_at_once(code)

    def _listen(self, reader: socket.socket) -> None:
        while True:
            for number in reader.recv(64):
                if number in _SIGNALS:
                    code = _SIGNALS[signal.Signals(number)]
                    (self._tell or self.request)(code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """A second SIGINT, from somebody who will not wait, ends the process as it always does."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignores the signals that ask for a save from now on, when the process has no more to save.

    A launcher that sees the first of several processes end with 75 may send SIGTERM to the rest,
    and while the interpreter closes down it would end them as if they had not been listening.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def leave_at_once(code: int) -> None:
    """Ends the process before its first update, when there is nothing to save."""
    sys.stderr.write(
        "charlstm: ended before an update was made; the same command begins or goes on\n"
    )
    sys.stderr.flush()
    os._exit(code)


def join_watches(
    watch: Watch,
    write: Callable[[str, str], None],
    notes: Callable[[str], dict[str, str]],
    process: int,
) -> None:
    """Makes a signal to any of several processes one to all: process 0 hears of it and decides.

    Args:
      watch: this process's.
      write, notes: of a board that all processes can read, see `coordination.Board`.
      process: the number of this one.
    """

    def say_leave() -> None:
        # No process begins without process 0, so all of them can leave at once.
        write("leave/all", str(watch.code))
        time.sleep(4 * _POLL_SECONDS)  # as long as the others need to read it

    def listen_to_all() -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            for code in notes("signal").values():
                watch.request(int(code), say_leave)

    def listen_to_first() -> None:
        while not watch.started:
            for code in notes("leave").values():
                leave_at_once(int(code))
            time.sleep(_POLL_SECONDS)

    def listen() -> None:
        # Without the service there is nothing to hear; the main thread is told of that as well.
        with contextlib.suppress(Exception):
            listen_to_all() if process == 0 else listen_to_first()

    watch.tell(lambda code: write(f"signal/{process}", str(code)))
    threading.Thread(target=listen, daemon=True).start()
