"""What a run tells: `metrics.jsonl`, and the console."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from absl import logging
from tqdm import tqdm

from charlstm import coordination
from charlstm.files import replace_file

FILE = "metrics.jsonl"


def is_figures(line: Mapping[str, Any]) -> bool:
    """Whether a line of the file holds figures, and no diagnosis."""
    return "diagnosis" not in line


def read_figures(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl` that hold figures; none if there is no such file."""
    found = []
    try:
        text = (run / FILE).read_text()
    except OSError:
        return []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # of a line that is being written
            found.append(json.loads(line))
    return [line for line in found if is_figures(line)]


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line in the order of the updates, and `samples/`.

    Args:
      run: the run folder.
      step: the update that the run goes on from. Lines of later updates, left by a process
        that was ended before it could save, are dropped: those updates are made again.
    """

    def __init__(self, run: Path, step: int):
        self._path = run / FILE
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= step and step > 0:
                        kept.append(line + "\n")
                except ValueError:  # the line that was being written
                    pass
        replace_file(self._path, "".join(kept))
        self._file = self._path.open("a")

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends a line; it is in the file when this returns."""
        self._file.write(json.dumps(dict(values), allow_nan=False) + "\n")
        self._file.flush()

    def sample(self, step: int, drawn: bytes) -> None:
        """Keeps a text that the model made: `samples/STEP.txt`."""
        folder = self._path.parent / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"{step:08d}.txt").write_bytes(drawn)

    def amend(self, values: Mapping[str, Any]) -> None:
        """Adds figures to the last line that has any: one of a diagnosis has none."""
        self._file.close()
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        if not any(is_figures(line) for line in lines):
            lines.append({})
        last = next(line for line in reversed(lines) if is_figures(line))
        last |= values
        text = [json.dumps(line, allow_nan=False) for line in lines]
        replace_file(self._path, "\n".join(text) + "\n")
        self._file = self._path.open("a")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Clock:
    """Seconds of training, over all restarts.

    Args:
      seconds_before: what earlier processes spent.
      now: a monotonic clock in seconds.
    """

    def __init__(self, seconds_before: float = 0.0, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._start = now() - seconds_before

    def seconds(self) -> float:
        """Seconds so far."""
        return self._now() - self._start


class Console(Protocol):
    """Where a person watches."""

    def update(self, step: int, summary: str) -> None:
        """Shows where the run is."""

    def say(self, text: str) -> None:
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

    def say(self, text: str) -> None:
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

    def say(self, text: str) -> None:
        """Logs the text as it is."""
        logging.info("%s", text)

    def close(self) -> None:
        """Nothing to do."""


class Silence:
    """The console and the metrics of a process that is not the first: one speaks for all."""

    def update(self, step: int, summary: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def amend(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def sample(self, step: int, drawn: bytes) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Writer(Protocol):
    """Is told of a run as it goes."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Takes the figures of an update, `step` among them."""

    def amend(self, values: Mapping[str, Any]) -> None:
        """Takes more figures of the last update written, `step` among them too."""

    def sample(self, step: int, drawn: bytes) -> None:
        """Takes a text that the model made."""

    def close(self) -> None:
        """Takes no more; what is still waiting is sent on."""


def make_metrics_file(run: Path, step: int) -> Writer:
    """`metrics.jsonl` in process 0; see `MetricsFile`."""
    return MetricsFile(run, step) if coordination.is_first() else Silence()


def make_console(num_updates: int, step: int) -> Console:
    """A bar if standard error is a terminal, else lines; in process 0."""
    if not coordination.is_first():
        return Silence()
    kind = BarConsole if sys.stderr.isatty() else LineConsole
    return kind(num_updates, step)


def bytes_rate(bytes_per_second: float) -> str:
    """A rate for people, `48.2 kB/s`."""
    return f"{tqdm.format_sizeof(bytes_per_second)}B/s"
