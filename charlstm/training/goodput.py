"""Goodput: the share of a run's wall time in which updates were computed, and where the rest went.

Only the host's clock is read, and no device is waited for. What the loop spends outside the causes
below is training: the devices are busy then, for the host is one dispatch ahead of them.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from charlstm.runtime.process_starts import start_ticks

# Every run counts these; the hooks of a user are counted under names of their own.
CAUSES = ("start", "compile", "restore", "save", "evaluation", "sampling", "input")


class Goodput:
    """Counts seconds by cause.

    Args:
      began: when the process began, by `now`; what is not counted otherwise until `started` is
        the cause `start`.
      now: a monotonic clock in seconds.
    """

    def __init__(self, began: float | None = None, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._began = now() if began is None else began
        self._lost: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
        self._earlier: dict[str, float] = {}
        self._depth = 0
        self._input: Callable[[], float] = lambda: 0.0

    def resume_from(self, earlier: dict[str, float]) -> None:
        """Adds what earlier processes of the run counted, in `to_json`'s form."""
        self._earlier = dict(earlier)

    def count_input(self, seconds: Callable[[], float]) -> None:
        """Reads the seconds for which updates wait for their text off a counter, from now on."""
        before = seconds()
        self._input = lambda: seconds() - before

    def started(self) -> None:
        """Marks that updates begin: the time that was not counted so far went into starting."""
        self._lost["start"] = self._now() - self._began - sum(self._lost.values())

    @contextlib.contextmanager
    def lost_to(self, cause: str) -> Iterator[None]:
        """Books the time inside under a cause; inside another cause it is booked under that."""
        begin = self._now()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._lost[cause] = self._lost.get(cause, 0.0) + self._now() - begin

    def to_json(self) -> dict[str, float]:
        """Returns seconds by cause, and `total`, over all processes of the run so far."""
        seconds = {"total": self._now() - self._began, **self._lost, "input": self._input()}
        names = dict.fromkeys([*seconds, *self._earlier])
        return {
            name: round(seconds.get(name, 0.0) + self._earlier.get(name, 0.0), 3) for name in names
        }

    def metrics(self) -> dict[str, Any]:
        """Returns, for `metrics.jsonl`, the share and the seconds lost by cause."""
        seconds = self.to_json()
        return {"goodput": round(_share(seconds), 4), "lost_seconds": _lost(seconds)}

    def summary(self) -> str:
        """Returns one line for people."""
        seconds = self.to_json()
        total = max(seconds["total"], 1e-9)
        causes = sorted(_lost(seconds).items(), key=lambda item: -item[1])
        lost = ", ".join(f"{cause} {value / total:.1%}" for cause, value in causes if value > 0)
        return f"goodput: {_share(seconds):.1%} of {total:.0f} s went into training; {lost}"


def _lost(seconds: dict[str, float]) -> dict[str, float]:
    return {cause: value for cause, value in seconds.items() if cause != "total"}


def _share(seconds: dict[str, float]) -> float:
    return 1 - sum(_lost(seconds).values()) / max(seconds["total"], 1e-9)


def process_began() -> float:
    """Returns when this process began, by `time.monotonic`; now, where the system does not say."""
    now = time.monotonic()
    try:
        ticks = int(start_ticks(os.getpid()))  # of time in which the machine slept too
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return now
    return now - age
