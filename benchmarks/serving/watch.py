"""A process seen from outside: its memory, files and threads."""

import os
import time
from pathlib import Path

import numpy as np

# Of the memory over the second half, which has to be so long for a verdict.
MOST_GROWTH, SECONDS_FOR_A_VERDICT = 0.05, 30.0


class Watch:
    """Watches a process from outside.

    Attributes:
      memory: (seconds, bytes) that it had in memory.
    """

    def __init__(self, pid: int):
        self._pid, self._begin = pid, time.monotonic()
        self.memory: list[tuple[float, int]] = []

    def look(self) -> None:
        """Notes its memory."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        now = time.monotonic() - self._begin
        self.memory.append((now, pages * os.sysconf("SC_PAGE_SIZE")))

    def files(self) -> int:
        """Returns how many files and connections it has open."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def threads(self) -> int:
        """Returns how many threads it has."""
        return len(os.listdir(f"/proc/{self._pid}/task"))

    def second_half(self) -> tuple[float, float, float]:
        """Returns the mean memory of the second half, its slope per second, and its length."""
        seconds, size = np.array(self.memory).T
        part = seconds >= seconds[-1] / 2
        slope, _ = np.polyfit(seconds[part], size[part], 1)
        return float(size[part].mean()), float(slope), float(np.ptp(seconds[part]))
