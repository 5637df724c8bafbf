"""What a run remembers beside its train state: time, faults, validations."""

import dataclasses
from typing import Any

from charlstm.config import OptimizerConfig
from charlstm.training.averaging import Validations
from charlstm.training.diagnosis.history import History
from charlstm.training.goodput import Goodput
from charlstm.training.metrics import Clock


@dataclasses.dataclass
class Progress:
    """Changed as the run goes on, and saved with every checkpoint."""

    clock: Clock
    goodput: Goodput
    validations: Validations
    history: History = dataclasses.field(default_factory=History)
    skipped: int = 0  # updates, over all restarts
    skipped_in_a_row: int = 0

    @classmethod
    def new(cls, optimizer: OptimizerConfig, goodput: Goodput) -> "Progress":
        """Of a run that begins; `goodput` counts from its process's start."""
        return cls(Clock(), goodput, Validations.of(optimizer))

    @classmethod
    def of(cls, saved: dict[str, Any], optimizer: OptimizerConfig, goodput: Goodput) -> "Progress":
        """Of a run that goes on, from what `to_json` saved."""
        goodput.goes_on_from(saved.get("goodput", {}))
        return cls(
            Clock(saved["seconds"]),
            goodput,
            Validations.of(optimizer, saved.get("validations")),
            History.from_json(saved.get("diagnosis", {})),
            saved["skipped"],
        )

    def to_json(self) -> dict[str, Any]:
        """What is to be saved, plain JSON values."""
        return {
            "seconds": self.clock.seconds(),
            "skipped": self.skipped,
            "goodput": self.goodput.to_json(),
            "diagnosis": self.history.to_json(),
            "validations": self.validations.to_json(),
        }
