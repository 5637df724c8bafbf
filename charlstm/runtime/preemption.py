"""Signals that end a run: noticed at any moment, obeyed at the next good one.

SIGTERM and SIGUSR1 ask for a save and exit code 75, SIGINT for a save and exit code 130. A thread
notices them through a pipe that Python's signal handler writes to, even while the main thread
compiles or waits for a device. Before the first update there is nothing to save, and the process
ends at once. From then on the training loop asks the `SignalHandler` between dispatches.

A command that trains holds signals back as the first thing that it does, and they stay held back
when the process starts itself again. The handler is made before JAX is loaded, and takes what came.
(So does a server, whose handler is another: `charlstm/serving/signals.py`.)
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


def hold_back() -> None:
    """Keeps signals waiting until something handles them, also across `os.exec`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


class SignalHandler:
    """Notices signals from the moment it is made; make one for each process.

    Calling it returns the exit code that a signal asked for, or None: it is what `train` takes as
    `stop`.

    Attributes:
      code: the exit code that a signal asked for, in this process or, for process 0 of several, in
        any; None if there was none, and in the processes that do not decide.
      started: True once updates have begun.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.started = False
        self._lock = threading.Lock()
        self._forward: Callable[[int], None] | None = None
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._ends = reader, writer  # kept open
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def __call__(self) -> int | None:
        """Returns the exit code that a signal asked for; None if there was none."""
        return self.code

    def forward_to(self, receiver: Callable[[int], None]) -> None:
        """From now on passes the exit codes of signals to `receiver` and does not obey them."""
        with self._lock:
            self._forward = receiver

    def start(self) -> None:
        """Marks that updates begin: from now on a signal waits for the loop to ask for it."""
        with self._lock:
            self.started = True
            code = self.code
        if code is not None:  # the thread that noticed it is about to end this process
            time.sleep(10)
            exit_at_once(code)

    def request(self, code: int, before_exit: Callable[[], None] | None = None) -> None:
        """Asks for the end with exit code `code`.

        Args:
          code: the first one asked for counts.
          before_exit: called before this process ends at once, if it does.
        """
        with self._lock:
            if self.code is not None:
                return
            self.code = code
            at_once = not self.started
        if at_once:
            if before_exit is not None:
                before_exit()
            exit_at_once(code)

    def _listen(self, reader: socket.socket) -> None:
        while True:
            for number in reader.recv(64):
                if number in _SIGNALS:
                    code = _SIGNALS[signal.Signals(number)]
                    (self._forward or self.request)(code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Lets a second SIGINT, from somebody who will not wait, end the process as usual."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignores the signals that end a run from now on, when there is no more to save.

    A launcher that sees the first of several processes end with 75 may send SIGTERM to the rest,
    and while the interpreter closes down it would end them as if they had not been listening.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def exit_at_once(code: int) -> None:
    """Ends the process before its first update, when there is nothing to save."""
    sys.stderr.write(
        "charlstm: ended before an update was made; the same command begins or goes on\n"
    )
    sys.stderr.flush()
    os._exit(code)


def connect_processes(
    handler: SignalHandler,
    write: Callable[[str, str], None],
    entries: Callable[[str], dict[str, str]],
    process: int,
) -> None:
    """Makes a signal to any of several processes one to all: process 0 hears of it and decides.

    Args:
      handler: this process's.
      write, entries: of a store that all processes share, see `coordination.KeyValueStore`.
      process: the number of this one.
    """

    def tell_all_to_exit() -> None:
        # No process begins without process 0, so all of them can end at once.
        write("exit/all", str(handler.code))
        time.sleep(4 * _POLL_SECONDS)  # as long as the others need to read it

    def listen_to_all() -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            for code in entries("signal").values():
                handler.request(int(code), tell_all_to_exit)

    def listen_to_first() -> None:
        while not handler.started:
            for code in entries("exit").values():
                exit_at_once(int(code))
            time.sleep(_POLL_SECONDS)

    def listen() -> None:
        # Without the service there is nothing to hear; the main thread is told of that as well.
        with contextlib.suppress(Exception):
            listen_to_all() if process == 0 else listen_to_first()

    handler.forward_to(lambda code: write(f"signal/{process}", str(code)))
    threading.Thread(target=listen, daemon=True).start()
