"""The hook that traces some updates with JAX's profiler."""

from pathlib import Path
from typing import TYPE_CHECKING

import jax
from absl import logging

from charlstm.errors import UserError, in_one_line
from charlstm.runtime import coordination
from charlstm.storage.layout import PROFILE_FOLDER
from charlstm.training.hooks import Hook

if TYPE_CHECKING:
    from charlstm.training.run import Run


class Profile(Hook):
    """Traces some updates into `profile/` of the run folder, in process 0.

    Every process has one, since all must cut their updates into the same dispatches.

    Args:
      start, stop: the first update that is traced, and the one before which the trace ends.
    """

    cause = ""

    def __init__(self, start: int, stop: int):
        self._start, self._stop = start, stop
        self._folder: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Profile":
        """Reads `START:STOP`.

        Raises:
          UserError: it is written otherwise.
        """
        start, _, stop = text.partition(":")
        if not (start.isdecimal() and stop.isdecimal()):
            raise UserError(f"--profile={text} must be START:STOP, two updates such as 100:110")
        return cls(int(start), int(stop))

    def check(self, run: "Run") -> None:
        """Makes sure that the run is still to make these updates."""
        start, stop, num_updates = self._start, self._stop, run.config.training.num_updates
        if not 0 <= start < stop <= num_updates:
            raise UserError(
                f"--profile={start}:{stop} must be START:STOP with START below STOP and STOP at "
                f"most training.num_updates={num_updates}"
            )
        if start < run.first:
            raise UserError(
                f"--profile={start}:{stop} lies in the past: the run goes on from update "
                f"{run.first}"
            )

    def start(self, run: "Run") -> None:
        """See `Hook`."""
        if run.first == self._start:
            self(run)

    def next_due(self, updates: int) -> int | None:
        """See `Hook`."""
        return next((mark for mark in (self._start, self._stop) if mark > updates), None)

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        return run.updates in (self._start, self._stop) and run.updates > run.first

    def __call__(self, run: "Run") -> None:
        """Starts or ends the trace; the device is idle."""
        if run.updates == self._stop:
            self.close()
        elif coordination.is_first():  # one process's trace tells of all
            self._folder = run.workdir / PROFILE_FOLDER
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)

    def close(self) -> None:
        """Writes the trace, if one was started."""
        if self._folder is not None:
            folder, self._folder = self._folder, None
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError) as error:
                logging.warning("the profile is not written to %s: %s", folder, in_one_line(error))
            else:
                logging.info("wrote the profile of updates from %d on to %s", self._start, folder)
