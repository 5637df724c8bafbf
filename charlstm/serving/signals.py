"""SIGTERM and Ctrl-C, which ask a server to end.

As long as nothing is served, they end the process at once, with 0. After that they wait for what
runs to be finished; a second one does not.
"""

import os
import signal
import sys
from types import FrameType

_SIGNALS = signal.SIGTERM, signal.SIGINT


class Signals:
    """Notices signals from the moment it is made, in the main thread.

    Attributes:
      is_asked: True once one has asked for the end of what is served.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_serving = False
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def serving(self) -> None:
        """From now on the first signal waits for what runs."""
        self._is_serving = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._is_serving and not self.is_asked:
            self.is_asked = True
            return
        # At once: a thread that compiles could not be waited for.
        how = "without waiting for what ran" if self.is_asked else "before anything was served"
        os.write(sys.stderr.fileno(), f"charlstm: ended {how}\n".encode())
        os._exit(128 + number if self.is_asked else 0)
