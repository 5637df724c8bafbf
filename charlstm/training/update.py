"""One update of the parameters: the loss of a window, its gradient, and the optimizer's step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from charlstm.model.dropout import Dropout
from charlstm.model.network import Network, next_symbol_nats
from charlstm.model.parameters import Params
from charlstm.model.stack import Carry
from charlstm.runtime.targets import Target
from charlstm.training.averaging import Averaging
from charlstm.training.layout import Layout
from charlstm.training.train_state import TrainState


class UpdateMetrics(NamedTuple):
    """The metrics of one update, or of each update of a dispatch [K]; float32 on the device."""

    nats: jax.Array  # mean negative log-likelihood of the window's bytes
    accuracy: jax.Array  # share of them that were the likeliest
    gradient_norm: jax.Array  # global norm before clipping
    learning_rate: jax.Array
    skipped: jax.Array  # 1 if loss or gradient was not finite and nothing was changed


# Makes one update: (state, window uint8 [T+1, B]) → (state, metrics).
Update = Callable[[TrainState, jax.Array], tuple[TrainState, UpdateMetrics]]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a window.

    Attributes:
      network: how the window is computed.
      dropout: what is dropped.
      encode_table: uint8 [256], byte → symbol; None: bytes are the symbols.
      carry_state: False: the state is zero before every window.
      activation_regularization: α on the mean square of what the head reads, after dropout.
      temporal_activation_regularization: β on the mean square of the differences from step to step
        of what it reads, before dropout (Merity, McCann & Socher 2017).
    """

    network: Network
    dropout: Dropout
    encode_table: np.ndarray | None
    carry_state: bool = True
    activation_regularization: float = 0.0
    temporal_activation_regularization: float = 0.0

    def loss(
        self, params: Params, carry: Carry, window: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Carry]]:
        """Returns the mean nats of a window's next bytes, plus regularization.

        Args:
          params: float32.
          carry: the state before the window.
          window: uint8 [T+1, B]; row t+1 holds the targets of row t.
          key: a key of this window's own, for dropout.

        Returns:
          The loss, and (nats alone, accuracy, carry after the window).
        """
        if not self.carry_state:
            carry = {"h": jnp.zeros_like(carry["h"]), "c": jnp.zeros_like(carry["c"])}
        symbols = window if self.encode_table is None else encode(self.encode_table, window)
        inputs, targets = symbols[:-1], symbols[1:]
        axis = jax.typeof(carry["h"]).sharding.spec[1]
        dropped = self.dropout.draw(key, params, inputs, axis)
        outputs, carry = self.network.outputs(params, carry, inputs, dropped)
        read = outputs
        if dropped is not None and dropped.output is not None:
            read = outputs * dropped.output.astype(outputs.dtype)
        nats, correct = next_symbol_nats(self.network.logits(params, read), targets)
        mean, accuracy = jnp.mean(nats), jnp.mean(correct.astype(jnp.float32))
        return self._regularized(mean, outputs, read), (mean, accuracy, carry)

    def _regularized(self, loss: jax.Array, outputs: jax.Array, read: jax.Array) -> jax.Array:
        """Adds to the loss the regularization of outputs [T, B, H] and of what the head reads."""
        if self.activation_regularization:
            squares = jnp.square(read.astype(jnp.float32))
            loss = loss + self.activation_regularization * jnp.mean(squares)
        if self.temporal_activation_regularization:
            steps = jnp.diff(outputs.astype(jnp.float32), axis=0)
            loss = loss + self.temporal_activation_regularization * jnp.mean(jnp.square(steps))
        return loss


def encode(table: np.ndarray, text: jax.Array) -> jax.Array:
    """Returns symbols of bytes: uint8 of any shape and sharding, by the table uint8 [256]."""
    spec = jax.typeof(text).sharding.spec
    sharding = None if jax.sharding.get_abstract_mesh().empty else spec
    return (
        jnp.asarray(table)
        .at[text.astype(jnp.int32)]
        .get(out_sharding=sharding, mode="promise_in_bounds")
    )


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: Layout,
    averaging: Averaging,
) -> Update:
    """Returns the pure function of one update.

    An update whose loss or gradient is not finite changes nothing but the step: parameters,
    optimizer state, average and carry stay as they were.

    Args:
      objective: the loss.
      optimizer, schedule: turn gradients into changes.
      layout: how parameters and optimizer state are shared out among devices.
      averaging: how the state's average follows the parameters.
    """
    target = objective.network.compute.target

    def update(state: TrainState, window: jax.Array) -> tuple[TrainState, UpdateMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (_, (nats, accuracy, carry)), gradients = jax.value_and_grad(objective.loss, has_aux=True)(
            layout.for_computing(state.params), state.carry, window, key
        )
        gradients, shares = layout.for_optimizer(gradients), layout.for_optimizer(state.params)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(nats) & jnp.isfinite(norm)
        rate = schedule(state.step)

        def changed(before: tuple[Params, Any, Carry, Any]) -> tuple[Params, Any, Carry, Any]:
            shares, opt_state, _, average = before
            direction, opt_state = optimizer.update(gradients, opt_state, shares)
            moved = jax.tree.map(lambda p, d: p - rate * d, shares, direction)
            return moved, opt_state, carry, averaging.follow(average, moved, state.step)

        before = (shares, state.opt_state, state.carry, state.average)
        moved, opt_state, carry_after, average = _if(target, finite, changed, before)
        params = layout.for_storing(moved)
        metrics = UpdateMetrics(nats, accuracy, norm, rate, 1.0 - finite.astype(jnp.float32))
        after = TrainState(state.step + 1, params, opt_state, carry_after, state.key, average)
        return after, metrics

    return update


def _if(target: Target, condition: jax.Array, change: Callable[[Any], Any], value: Any) -> Any:
    """Returns `change(value)` if the condition, a scalar, holds; else `value`.

    On a CPU by a branch: a selection between new and old keeps both, and so would copy all of the
    parameters and of the optimizer's state in every update. On an accelerator by a selection: there
    a branch waits for the host.
    """
    if target.is_cpu:
        return jax.lax.cond(condition, change, lambda value: value, value)
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), change(value), value)
