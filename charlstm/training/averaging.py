"""Averages of the parameters over updates, which are used in the parameters' place.

  ema         after update t + 1 (t from 0) a share min(decay, (1 + t) / (10 + t)) of the average
              stays and the rest is the parameters'
  triggered   the parameters themselves, until the validation stalls; from then on the mean of the
              parameters after each update (Merity, Keskar & Socher 2018, their NT-ASGD)

The average is a part of the train state: `{"params"}` of the parameters' shapes, beside it for
`triggered` the `start`, the number of updates before the first that counts. Without averaging it
is empty.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm import coordination, distributed
from charlstm.config import OptimizerConfig
from charlstm.model.language_model import Params
from charlstm.training.state import TrainState

NOT_STARTED = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Averaging:
    """The average as `config` has it."""

    kind: str  # none, ema or triggered
    decay: float

    @classmethod
    def of(cls, config: OptimizerConfig) -> "Averaging":
        """As configured."""
        return cls(config.averaging, config.ema_decay)

    def start(self, params: Params) -> dict[str, Any]:
        """The average before the first update."""
        if self.kind == "none":
            return {}
        average = {"params": jax.tree.map(jnp.copy, params)}
        return average | ({"start": jnp.int32(NOT_STARTED)} if self.kind == "triggered" else {})

    def follow(self, average: dict[str, Any], params: Params, step: jax.Array) -> dict[str, Any]:
        """The average after an update.

        Args:
          average: before it.
          params: after it, laid out like the average.
          step: int32 scalar, the updates made before it.
        """
        if self.kind == "none":
            return average
        if self.kind == "ema":
            t = step.astype(jnp.float32)
            share = 1 - jnp.minimum(self.decay, (1 + t) / (10 + t))
        else:
            count = step + 1 - average["start"]
            share = 1 / jnp.maximum(count, 1).astype(jnp.float32)
        # With a share of 1 these are the very parameters.
        followed = jax.tree.map(lambda a, p: (1 - share) * a + share * p, average["params"], params)
        return average | {"params": followed}


@dataclasses.dataclass
class Validations:
    """What the trigger remembers: every validation so far; saved with every checkpoint."""

    patience: int  # 0: averaging is not triggered
    bits: list[float] = dataclasses.field(default_factory=list)  # per byte
    last_step: int = 0  # the update of the last of them
    started: bool = False

    @classmethod
    def of(cls, config: OptimizerConfig, saved: dict[str, Any] | None = None) -> "Validations":
        """As configured; of a run that goes on, with what `to_json` saved."""
        patience = config.averaging_patience if config.averaging == "triggered" else 0
        return cls(patience, **(saved or {}))

    def to_json(self) -> dict[str, Any]:
        """What is to be saved."""
        return {"bits": self.bits, "last_step": self.last_step, "started": self.started}

    def take_in(self, step: int, bits: float) -> bool:
        """Remembers a validation; whether averaging is to start with it.

        It is if the validation is worse than the best of those that are more than `patience`
        validations old. Of several processes all decide as the first.
        """
        if not self.patience or self.started or step == self.last_step:
            return False
        old = self.bits[: -self.patience]
        stalled = coordination.from_first(lambda: str(bool(old) and bits > min(old))) == "True"
        self.bits.append(bits)
        self.last_step, self.started = step, stalled
        return stalled


def begin(state: TrainState, step: int) -> TrainState:
    """The state after update `step`, of which on parameters are averaged."""
    start = distributed.put(np.asarray(step, np.int32), state.average["start"].sharding)
    return dataclasses.replace(state, average=state.average | {"start": start})
