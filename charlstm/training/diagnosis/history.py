"""The memory of a run for its diagnoses, so that each is reported once."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from charlstm.training.diagnosis import checks
from charlstm.training.diagnosis.statistics import Block, Diagnosis, Setting, Validation, Verdict
from charlstm.training.metrics_file import is_number

KEPT = 12  # blocks and validations

T = TypeVar("T")


@dataclasses.dataclass
class History:
    """The memory of a run for its diagnoses; saved with every checkpoint.

    Attributes:
      blocks: whole ones, the last few and the best before them.
      pending: the block that is not whole yet.
      validations: the last few and the best before them.
      since_validation: the updates since the last validation.
      active: the codes that were reported and still hold.
      unsure: the codes that held once and must hold twice to be reported.
      norm: of the parameters that the run began with; 0 before it began.
    """

    blocks: list[Block] = dataclasses.field(default_factory=list)
    pending: Block = dataclasses.field(default_factory=Block)
    validations: list[Validation] = dataclasses.field(default_factory=list)
    since_validation: Block = dataclasses.field(default_factory=Block)
    active: list[str] = dataclasses.field(default_factory=list)
    unsure: list[str] = dataclasses.field(default_factory=list)
    norm: float = 0.0

    def update(self, setting: Setting, seen: Block) -> list[Diagnosis]:
        """Adds updates; returns the diagnoses to report now."""
        self.since_validation = self.since_validation.join(seen)
        self.pending = self.pending.join(seen)
        if self.pending.updates < setting.block:
            return []
        self.blocks = _recent([*self.blocks, self.pending], key=lambda block: block.mean_bits)
        self.pending = Block()
        high = checks.learning_rate_too_high(setting, self.blocks)
        found = self._new(("learning_rate_too_high", high))
        if "learning_rate_too_high" in self.active:
            return found  # a loss that does not fall and large gradients come of it
        return found + self._new(
            ("learning_rate_too_low", checks.learning_rate_too_low(setting, self.blocks)),
            ("gradients_clipped", checks.gradients_clipped(setting, self.blocks)),
        )

    def update_validation(
        self,
        setting: Setting,
        step: int,
        bits: float,
        carried: float | None,
        zeroed: float | None,
    ) -> list[Diagnosis]:
        """Adds a validation, see `state_unused`; returns the diagnoses to report now.

        One that is not finite is no validation, but a sign.
        """
        if not math.isfinite(bits):
            self.since_validation = Block()
            high = checks.validation_not_finite(setting, step)
            return self._new(("learning_rate_too_high", high))
        if self.since_validation.counted:
            validation = Validation(step, bits, self.since_validation.mean_bits)
            self.validations = _recent([*self.validations, validation], key=lambda v: v.valid)
        self.since_validation = Block()
        unused = checks.state_unused(setting.levels, setting.carry_state, bits, carried, zeroed)
        # A state that is carried may be of no use yet as the loss passes through the level.
        may_pass = setting.carry_state or setting.window_length > 1
        if isinstance(unused, Diagnosis) and may_pass and unused.code not in self.unsure:
            self.unsure.append(unused.code)
            unused = None
        elif unused is False and "state_unused" in self.unsure:
            self.unsure.remove("state_unused")
        return self._new(
            ("state_unused", unused), ("overfitting", checks.overfitting(self.validations))
        )

    def start(self, setting: Setting) -> list[Diagnosis]:
        """Returns the diagnoses that are known before the first update."""
        return self._new(("streams_too_short", checks.streams_too_short(setting)))

    def _new(self, *verdicts: tuple[str, Verdict]) -> list[Diagnosis]:
        new = []
        for code, verdict in verdicts:
            if isinstance(verdict, Diagnosis) and code not in self.active:
                self.active.append(code)
                new.append(verdict)
            elif verdict is False and code in self.active:
                self.active.remove(code)
        return new

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "History":
        """Is the inverse of `to_json`; an empty object makes an empty history."""
        if not values:
            return cls()
        return cls(
            blocks=[Block(**fields) for fields in values["blocks"]],
            pending=Block(**values["pending"]),
            validations=[Validation(**fields) for fields in values["validations"]],
            since_validation=Block(**values["since_validation"]),
            active=list(values["active"]),
            unsure=list(values["unsure"]),
            norm=values.get("norm", 0.0),
        )


def _recent(items: list[T], key: Callable[[T], float]) -> list[T]:
    """Returns the last few, and in front of them the best of all."""
    if len(items) <= KEPT:
        return items
    best = min(items, key=key)
    last = items[-KEPT:]
    return last if best in last else [best, *last[1:]]


def validations_of(lines: Iterable[dict[str, Any]], up_to: int) -> list[Validation]:
    """Returns the validations in the lines of `metrics.jsonl`, up to an update."""
    found, losses = [], []
    for line in lines:
        if line["step"] > up_to:
            break
        if is_number(line.get("train_bits_per_byte")):
            losses.append(line["train_bits_per_byte"])
        if is_number(line.get("valid_bits_per_byte")) and losses:
            train = sum(losses) / len(losses)
            found.append(Validation(line["step"], line["valid_bits_per_byte"], train))
            losses = []
    return found
