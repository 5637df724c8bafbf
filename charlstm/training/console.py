"""The console of a run: a progress bar, or lines for files and schedulers."""

import sys
import time
from collections.abc import Callable
from typing import Protocol

from absl import logging
from tqdm import tqdm

from charlstm.runtime import coordination


class Console(Protocol):
    """The place where a person watches a run."""

    def update(self, step: int, summary: str) -> None:
        """Shows where the run is."""

    def log(self, text: str) -> None:
        """Shows lines that stay."""

    def close(self) -> None:
        """Leaves the terminal tidy."""


class BarConsole:
    """A progress bar on a terminal's last line, what stays above it."""

    def __init__(self, num_updates: int, step: int):
        self._bar = tqdm(
            total=num_updates,
            initial=step,
            unit="update",
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar:20}| {n}/{total}{postfix} ETA {remaining}",
        )

    def update(self, step: int, summary: str) -> None:
        """Moves the bar."""
        self._bar.set_postfix_str(summary, refresh=False)
        self._bar.update(step - self._bar.n)

    def log(self, text: str) -> None:
        """Prints above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar where it is."""
        self._bar.close()


class LineConsole:
    """Plain log lines, for files and schedulers.

    Args:
      num_updates: the length of the run.
      step: where this process begins.
      now: a monotonic clock in seconds.
    """

    def __init__(self, num_updates: int, step: int, now: Callable[[], float] = time.monotonic):
        self._num_updates, self._first_step, self._now = num_updates, step, now
        self._begin = now()

    def update(self, step: int, summary: str) -> None:
        """Logs a line."""
        per_update = (self._now() - self._begin) / max(1, step - self._first_step)
        left = tqdm.format_interval(round(per_update * (self._num_updates - step)))
        logging.info("%d/%d %s ETA %s", step, self._num_updates, summary, left)

    def log(self, text: str) -> None:
        """Logs the text as it is."""
        logging.info("%s", text)

    def close(self) -> None:
        """Does nothing."""


class NullConsole:
    """The console of a process that is not the first: one prints for all."""

    def update(self, step: int, summary: str) -> None:
        """Does nothing."""

    def log(self, text: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def make_console(num_updates: int, step: int) -> Console:
    """Returns a bar in a terminal or a notebook, else log lines; in process 0 only."""
    if not coordination.is_first():
        return NullConsole()
    is_watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return (BarConsole if is_watched else LineConsole)(num_updates, step)


def bytes_rate(bytes_per_second: float) -> str:
    """Returns a rate for people, such as `48.2 kB/s`."""
    return f"{tqdm.format_sizeof(bytes_per_second)}B/s"
