"""Times work in windows, each of so many units that it takes about as long as asked for."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

WINDOWS = 5

# Does the given number of units of work, and returns when all of it is done.
Work = Callable[[int], Any]


def seconds_of(work: Work) -> Callable[[int], float]:
    """Returns a function that does units of work and returns the seconds that they took."""

    def run(count: int) -> float:
        begin = time.perf_counter()
        work(count)
        return time.perf_counter() - begin

    return run


def count_for(run: Callable[[int], float], run_seconds: float) -> int:
    """Returns how many units of work take about `run_seconds`; `run` returns those of a number."""
    run(1)
    count, seconds = 1, run(1)
    while seconds < run_seconds / 4:
        count = min(8 * count, math.ceil(count * run_seconds / max(seconds, 1e-6)))
        seconds = run(count)
    return max(1, math.ceil(count * run_seconds / seconds))


@dataclasses.dataclass(frozen=True)
class Windows:
    """Holds the times of some windows.

    Attributes:
      unit_seconds: of one unit of work, in each window.
      between: what was measured after each window, if anything was.
    """

    unit_seconds: list[float]
    between: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(
        cls, work: Work, seconds: float, between: Callable[[], float] | None = None
    ) -> "Windows":
        """Measures work in windows, after it has warmed up.

        Args:
          work: to be measured.
          seconds: about how long a window takes.
          between: measures something else after each window, to be compared with.
        """
        run = seconds_of(work)
        count = count_for(run, seconds)
        windows = cls([])
        for _ in range(WINDOWS):
            windows.unit_seconds.append(run(count) / count)
            if between is not None:
                windows.between.append(between())
        return windows

    def rate(self, units: float = 1.0) -> float:
        """Returns the median rate, where one unit of work counts as `units`."""
        return units / statistics.median(self.unit_seconds)

    def rates(self, units: float = 1.0) -> tuple[float, float]:
        """Returns the lowest and the highest rate of any window."""
        return units / max(self.unit_seconds), units / min(self.unit_seconds)
