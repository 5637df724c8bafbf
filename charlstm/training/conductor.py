"""What to do next, decided by process 0 and told to the others.

How many updates make a dispatch depends on a clock, a save that is due by time does too, and a
signal arrives in one process: left to themselves, processes would part. So before each dispatch
process 0 gives an order, and every process follows it. The others read it while the devices are
still at work on the dispatch before.
"""

import dataclasses
import json
import time
from collections.abc import Callable

from charlstm import coordination
from charlstm.preemption import Watch

# Orders that old have been read by every process, for they wait for each other in every dispatch.
_ORDERS_KEPT = 64

SECONDS_PER_DISPATCH = 0.5


@dataclasses.dataclass(frozen=True)
class Order:
    """What comes next.

    Attributes:
      count: how many updates to dispatch at most.
      save: whether to save first.
      leave: whether to save and end first, and with which exit code.
    """

    count: int
    save: bool
    leave: int | None


class Pace:
    """How many updates to put into a dispatch: a fixed number, or what fills half a second."""

    def __init__(self, fixed: int, most: int):
        self._fixed, self._most = min(fixed, most), most
        self._auto = 1

    def count(self) -> int:
        """Updates of the next dispatch."""
        return self._fixed or self._auto

    def took(self, count: int, seconds: float) -> None:
        """Learns from a dispatch of `count` updates."""
        fitting = count * SECONDS_PER_DISPATCH / max(seconds, 1e-6)
        self._auto = int(min(max(1, fitting), 2 * self._auto, self._most))


class Conductor:
    """Gives orders in process 0, and takes them in the others, in the same sequence.

    Args:
      pace: of the dispatches; told what they took.
      watch: where signals arrive; None listens to none.
      save_seconds: the time after a save when the next is due; 0 for never.
      now: a monotonic clock in seconds.
    """

    def __init__(
        self,
        pace: Pace,
        watch: Watch | None = None,
        save_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ):
        self.pace, self._watch = pace, watch
        self._save_seconds, self._now = save_seconds, now
        self._last_save = now()
        self._number = 0
        self._leave: int | None = None
        self._alone = coordination.is_alone()

    def next(self) -> Order:
        """The next order; every process asks at the same points of the program."""
        if self._alone:
            return self._decide()
        number, self._number = self._number, self._number + 1
        board = coordination.Board()
        if coordination.is_first():
            order = self._decide()
            board.write(f"order/{number}", json.dumps(dataclasses.astuple(order)))
            if number >= _ORDERS_KEPT:
                board.erase(f"order/{number - _ORDERS_KEPT}")
            return order
        return Order(*json.loads(board.read(f"order/{number}")))

    def leaving(self) -> bool:
        """Whether to leave off an evaluation or a sample, to be asked at the same points too."""
        return self.next().leave is not None

    def saved(self) -> None:
        """Says that a save was just begun."""
        self._last_save = self._now()

    def _decide(self) -> Order:
        if self._watch is not None and self._leave is None:
            self._leave = self._watch.code
        save = 0 < self._save_seconds <= self._now() - self._last_save
        return Order(self.pace.count(), save, self._leave)
