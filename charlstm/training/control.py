"""The decisions of a run: process 0 decides, all processes follow.

How many updates make a dispatch depends on a clock, a save that is due by time does too, and a
signal arrives in one process: left to themselves, processes would part. So before each dispatch
process 0 makes a decision, and every process follows it. The others read it while the devices are
still at work on the dispatch before.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable

from charlstm.runtime import coordination

# Decisions older than this many have been read by every process: they meet in every dispatch.
_DECISIONS_KEPT = 64

SECONDS_PER_DISPATCH = 0.5

# Returns the exit code that the run is to end with, after a save; None to go on.
Stop = Callable[[], int | None]


@dataclasses.dataclass(frozen=True)
class Decision:
    """The next things to do, the same in all processes.

    Attributes:
      count: the most updates to dispatch.
      save: True if the run is to be saved first.
      stop: the exit code to end with, after a save; None to go on.
    """

    count: int
    save: bool
    stop: int | None


class DispatchSize:
    """The number of updates in a dispatch: a fixed one, or as many as take half a second.

    Args:
      fixed: the number; 0 adapts it.
      most: the largest number that the compiled program takes.
    """

    def __init__(self, fixed: int, most: int):
        self._fixed, self._most = min(fixed, most), most
        self._auto = 1

    def count(self) -> int:
        """Returns the number of updates of the next dispatch."""
        return self._fixed or self._auto

    def update(self, count: int, seconds: float) -> None:
        """Adapts to a dispatch of `count` updates that took so many seconds."""
        fitting = count * SECONDS_PER_DISPATCH / max(seconds, 1e-6)
        self._auto = int(min(max(1, fitting), 2 * self._auto, self._most))


_numbers = itertools.count()  # of this process, whatever it trains: no key is used twice


class Control:
    """Makes decisions in process 0, and reads them in the others, in the same sequence.

    Args:
      dispatch_size: adapted to the time that dispatches take.
      stop: asked in process 0; None never stops.
      save_seconds: the time after a save when the next is due; 0 for never.
      now: a monotonic clock in seconds.
    """

    def __init__(
        self,
        dispatch_size: DispatchSize,
        stop: Stop | None = None,
        save_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ):
        self.dispatch_size, self._ask = dispatch_size, stop
        self._save_seconds, self._now = save_seconds, now
        self._last_save = now()
        self._stop: int | None = None
        self._is_single_process = coordination.is_single_process()

    def next(self) -> Decision:
        """Returns the next decision; every process asks at the same points of the program."""
        if self._is_single_process:
            return self._decide()
        number = next(_numbers)
        store = coordination.KeyValueStore()
        if coordination.is_first():
            decision = self._decide()
            store.write(f"decision/{number}", json.dumps(dataclasses.astuple(decision)))
            if number >= _DECISIONS_KEPT:
                store.delete(f"decision/{number - _DECISIONS_KEPT}")
            return decision
        return Decision(*json.loads(store.read(f"decision/{number}")))

    def should_stop(self) -> bool:
        """Returns True if an evaluation or a sample is to be left off; asked at the same points."""
        return self.next().stop is not None

    def saved(self) -> None:
        """Notes that a save was just begun."""
        self._last_save = self._now()

    def _decide(self) -> Decision:
        if self._ask is not None and self._stop is None:
            self._stop = self._ask()
        save = 0 < self._save_seconds <= self._now() - self._last_save
        return Decision(self.dispatch_size.count(), save, self._stop)
