"""A trace of some updates, for Perfetto and TensorBoard."""

from pathlib import Path

import jax
from absl import logging

from charlstm import coordination
from charlstm.errors import UserError

FOLDER = "profile"


class Profile:
    """Traces the updates from `start` to `stop` into `profile/` of the run folder, in process 0.

    Every process has one, for all must cut their updates into the same dispatches.

    Args:
      run: the run folder.
      start, stop: the first update that is traced, and the one before which the trace ends.
      step: the update that the run goes on from.
      num_updates: the length of the run.

    Raises:
      UserError: the bounds are no span of the updates that the run is still to make.
    """

    def __init__(self, run: Path, start: int, stop: int, *, step: int, num_updates: int):
        if not 0 <= start < stop <= num_updates:
            raise UserError(
                f"--profile={start}:{stop} must be START:STOP with START below STOP and STOP at "
                f"most training.num_updates={num_updates}"
            )
        if start < step:
            raise UserError(
                f"--profile={start}:{stop} lies in the past: the run goes on from update {step}"
            )
        self._folder = run / FOLDER
        self._start, self._stop = start, stop
        self._is_on = False

    def next_mark(self, step: int) -> int | None:
        """The next update at which the trace starts or ends; None if that is over."""
        return next((mark for mark in (self._start, self._stop) if mark > step), None)

    def at(self, step: int) -> None:
        """To be called between updates, the device idle: starts or ends the trace if it is time."""
        if self._is_on and step >= self._stop:
            self.close()
        elif step == self._start:
            if not coordination.is_first():
                return  # one process's trace tells of all
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._is_on = True

    def close(self) -> None:
        """Writes the trace, if one was started."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
            logging.info("wrote the profile of updates from %d on to %s", self._start, self._folder)


def parse(text: str) -> tuple[int, int]:
    """`START:STOP` as numbers.

    Raises:
      UserError: it is written otherwise.
    """
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal()):
        raise UserError(f"--profile={text} must be START:STOP, two updates such as 100:110")
    return int(start), int(stop)
