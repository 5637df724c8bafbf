"""The train state: one pytree that is all there is to save and to go on from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from charlstm.config import ModelConfig
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything an update reads and changes."""

    step: jax.Array  # int32 scalar, updates made so far
    params: Params  # float32
    opt_state: Any  # optax's own
    carry: Carry  # {"h", "c"} [L, B, H] float32
    key: jax.Array  # uint32 [2], the seed of all randomness of the run; never changes
    # See `averaging`; empty without it.
    average: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def weights(self) -> Params:
        """What the model is to be judged and used by: the average if there is one."""
        return self.average["params"] if self.average else self.params


def init_params(key: jax.Array, model: ModelConfig, alphabet_size: int) -> Params:
    """The parameters of a configured network before the first update, float32."""
    return language_model.init_params(
        key,
        alphabet_size=alphabet_size,
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        forget_bias=model.forget_bias,
        embedding_size=model.embedding_size,
        layer_norm=model.layer_norm,
    )


def init_state(
    model: ModelConfig,
    alphabet_size: int,
    num_streams: int,
    optimizer: optax.GradientTransformation,
    seed: jax.Array,
    axis: str | None = None,
) -> TrainState:
    """The state before the first update.

    Args:
      model: the network's sizes.
      alphabet_size: V.
      num_streams: B.
      optimizer: whose state is made.
      seed: uint32 scalar.
      axis: the mesh axis that the streams are split over, if any.
    """
    key = jax.random.key(seed)
    init_key, train_key = jax.random.split(key)
    params = init_params(init_key, model, alphabet_size)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        carry=language_model.zero_carry(params, num_streams, axis),
        key=jax.random.key_data(train_key),
    )
