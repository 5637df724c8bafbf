"""The train state: one pytree that is all there is to save and to resume from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from charlstm.model.parameters import Params
from charlstm.model.stack import Carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that an update reads and changes.

    Attributes:
      step: int32 scalar, the updates made so far.
      params: float32.
      opt_state: optax's own.
      carry: {"h", "c"} [L, B, H] float32.
      key: uint32 [2], the seed of all randomness of the updates; see `keys`.
      average: see `averaging`; empty without it.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    carry: Carry
    key: jax.Array
    average: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> Params:
        """The parameters that the model is judged and used by: the average if there is one."""
        return self.average["params"] if self.average else self.params

    def to_items(self) -> dict[str, Any]:
        """Returns the items of a checkpoint: `params`, `average` if there is one, `progress`."""
        progress = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        items = {"params": progress.pop("params"), "average": progress.pop("average")}
        return {name: item for name, item in items.items() if item} | {"progress": progress}

    @classmethod
    def from_items(cls, items: Mapping[str, Any]) -> "TrainState":
        """Is the inverse of `to_items`."""
        return cls(params=items["params"], average=items.get("average", {}), **items["progress"])


def keys(seed: int | np.unsignedinteger | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the key of the initial parameters, and the `key` of the state, from a run's seed."""
    for_params, for_updates = jax.random.split(jax.random.key(seed))
    return for_params, jax.random.key_data(for_updates)
