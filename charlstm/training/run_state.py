"""The part of a run's state that is no array: counters, time, validations, diagnoses."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from charlstm.config import OptimizerConfig
from charlstm.training.averaging import Validations
from charlstm.training.diagnosis.history import History
from charlstm.training.goodput import Goodput


class Clock:
    """Counts the seconds of training, over all restarts.

    Args:
      seconds_before: of earlier processes.
      now: a monotonic clock in seconds.
    """

    def __init__(self, seconds_before: float = 0.0, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._start = now() - seconds_before

    def seconds(self) -> float:
        """Returns the seconds so far."""
        return self._now() - self._start


@dataclasses.dataclass
class RunState:
    """Changes as the run goes on, and is saved with every checkpoint.

    Attributes:
      clock, goodput: time, by the clock and by cause.
      validations: for averages that wait for a stalled validation.
      history: for diagnoses.
      skipped: updates whose loss or gradient was not finite, over all restarts.
      skipped_in_a_row: how many of the last updates in a row were skipped, in this process.
      init_from: the path of the weights that the run began with; None for random ones.
      changes: of its configuration where it was resumed, see `resume.changes`.
    """

    clock: Clock
    goodput: Goodput
    validations: Validations
    history: History = dataclasses.field(default_factory=History)
    skipped: int = 0
    skipped_in_a_row: int = 0
    init_from: str | None = None
    changes: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def new(
        cls, optimizer: OptimizerConfig, goodput: Goodput, init_from: str | None = None
    ) -> "RunState":
        """Returns the state of a run that begins; `goodput` counts from its process's start."""
        return cls(Clock(), goodput, Validations.of(optimizer), init_from=init_from)

    @classmethod
    def from_json(
        cls, saved: dict[str, Any], optimizer: OptimizerConfig, goodput: Goodput
    ) -> "RunState":
        """Is the inverse of `to_json`, for the process that resumes the run."""
        goodput.resume_from(saved.get("goodput", {}))
        return cls(
            Clock(saved["seconds"]),
            goodput,
            Validations.of(optimizer, saved.get("validations")),
            History.from_json(saved.get("diagnosis", {})),
            saved["skipped"],
            init_from=saved.get("init_from"),
            changes=list(saved.get("changes", [])),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "seconds": self.clock.seconds(),
            "skipped": self.skipped,
            "goodput": self.goodput.to_json(),
            "diagnosis": self.history.to_json(),
            "validations": self.validations.to_json(),
            "init_from": self.init_from,
            "changes": self.changes,
        }
