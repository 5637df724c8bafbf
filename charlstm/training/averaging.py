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

from charlstm.config import OptimizerConfig
from charlstm.model.parameters import Params
from charlstm.runtime import coordination, meshes
from charlstm.training.train_state import TrainState

NOT_STARTED = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Averaging:
    """The kind of average that a run keeps."""

    kind: str  # none, ema or triggered
    decay: float

    @classmethod
    def of(cls, config: OptimizerConfig) -> "Averaging":
        """Returns the average as configured."""
        return cls(config.averaging, config.ema_decay)

    def start(self, params: Params) -> dict[str, Any]:
        """Returns the average before the first update."""
        if self.kind == "none":
            return {}
        average = {"params": jax.tree.map(jnp.copy, params)}
        return average | ({"start": jnp.int32(NOT_STARTED)} if self.kind == "triggered" else {})

    def follow(self, average: dict[str, Any], params: Params, step: jax.Array) -> dict[str, Any]:
        """Returns the average after an update.

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
    """Every validation so far, for the trigger; saved with every checkpoint."""

    patience: int  # 0: averaging is not triggered
    bits: list[float] = dataclasses.field(default_factory=list)  # per byte
    last_step: int = 0  # the update of the last of them
    started: bool = False

    @classmethod
    def of(cls, config: OptimizerConfig, saved: dict[str, Any] | None = None) -> "Validations":
        """Returns them as configured; of a resumed run, with what `to_json` saved."""
        patience = config.averaging_patience if config.averaging == "triggered" else 0
        return cls(patience, **(saved or {}))

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {"bits": self.bits, "last_step": self.last_step, "started": self.started}

    def update(self, step: int, bits: float) -> bool:
        """Remembers a validation; returns True if averaging is to start with it.

        It is if the validation is worse than the best of those that are more than `patience`
        validations old. Process 0 decides for all.
        """
        if not self.patience or self.started or step == self.last_step:
            return False
        old = self.bits[: -self.patience]
        stalled = coordination.broadcast_bool(lambda: bool(old) and bits > min(old))
        self.bits.append(bits)
        self.last_step, self.started = step, stalled
        return stalled


def begin(state: TrainState, step: int) -> TrainState:
    """Returns the state after update `step`, from which on parameters are averaged."""
    start = meshes.put(np.asarray(step, np.int32), state.average["start"].sharding)
    return dataclasses.replace(state, average=state.average | {"start": start})
