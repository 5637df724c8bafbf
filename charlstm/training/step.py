"""One update of the parameters, and a dispatch: several updates in one jitted call."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from charlstm.data.streams import Streams
from charlstm.model import language_model
from charlstm.model.dropout import Dropout
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry
from charlstm.training.averaging import Averaging
from charlstm.training.layout import Layout
from charlstm.training.state import TrainState


class UpdateMetrics(NamedTuple):
    """What one update, or each update of a dispatch [K], has to report; float32 on the device."""

    nats: jax.Array  # mean negative log-likelihood of the window's bytes
    accuracy: jax.Array  # share of them that were the likeliest
    gradient_norm: jax.Array  # global norm before clipping
    learning_rate: jax.Array
    skipped: jax.Array  # 1 if loss or gradient was not finite and nothing was changed


@dataclasses.dataclass(frozen=True)
class Forward:
    """How a window is run through the network in training."""

    compute_dtype: Any
    recurrence_name: str
    dropout: Dropout
    encode_table: jax.Array | None  # uint8 [256], byte → symbol; None: bytes are the symbols
    carry_state: bool = True  # False: the state is zero before every window
    # α on the mean square of what the head reads, after dropout; β on that of the differences from
    # step to step of what it reads, before dropout (Merity, McCann & Socher 2017).
    activation_regularization: float = 0.0
    temporal_activation_regularization: float = 0.0

    def loss(
        self, params: Params, carry: Carry, window: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Carry]]:
        """What is to become small: the mean nats of a window's next bytes, and regularisation.

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
        outputs, carry = language_model.outputs_of(
            params,
            carry,
            inputs,
            dropped,
            compute_dtype=self.compute_dtype,
            recurrence_name=self.recurrence_name,
        )
        read = outputs
        if dropped is not None and dropped.output is not None:
            read = outputs * dropped.output.astype(outputs.dtype)
        logits = language_model.logits_of(params, read)
        nats, correct = language_model.next_symbol_nats(logits, targets)
        mean, accuracy = jnp.mean(nats), jnp.mean(correct.astype(jnp.float32))
        return self._regularized(mean, outputs, read), (mean, accuracy, carry)

    def _regularized(self, loss: jax.Array, outputs: jax.Array, read: jax.Array) -> jax.Array:
        """The loss with what outputs [T, B, H], and what the head reads of them, add to it."""
        if self.activation_regularization:
            squares = jnp.square(read.astype(jnp.float32))
            loss = loss + self.activation_regularization * jnp.mean(squares)
        if self.temporal_activation_regularization:
            steps = jnp.diff(outputs.astype(jnp.float32), axis=0)
            loss = loss + self.temporal_activation_regularization * jnp.mean(jnp.square(steps))
        return loss


def encode(table: jax.Array, text: jax.Array) -> jax.Array:
    """Symbols of bytes: uint8 of any shape and sharding, by the table uint8 [256]."""
    spec = jax.typeof(text).sharding.spec
    sharding = None if jax.sharding.get_abstract_mesh().empty else spec
    return table.at[text.astype(jnp.int32)].get(out_sharding=sharding, mode="promise_in_bounds")


def make_update(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: Layout | None = None,
    averaging: Averaging = Averaging("none", 0.0),  # noqa: B008, it is frozen
) -> Callable[[TrainState, jax.Array], tuple[TrainState, UpdateMetrics]]:
    """The pure function (state, window [T+1, B]) → (state, metrics) of one update.

    An update whose loss or gradient is not finite changes nothing but the step: parameters,
    optimizer state, average and carry stay as they were.

    Args:
      forward: the network.
      optimizer, schedule: turn gradients into changes.
      layout: how parameters and optimizer state are shared out among devices; None: not at all.
      averaging: how the state's average follows the parameters.
    """
    gather = (lambda params: params) if layout is None else layout.for_computing
    share = (lambda tree: tree) if layout is None else layout.for_optimizer
    keep = (lambda tree: tree) if layout is None else layout.for_storing

    def update(state: TrainState, window: jax.Array) -> tuple[TrainState, UpdateMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (_, (nats, accuracy, carry)), gradients = jax.value_and_grad(forward.loss, has_aux=True)(
            gather(state.params), state.carry, window, key
        )
        gradients, shares = share(gradients), share(state.params)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(nats) & jnp.isfinite(norm)
        rate = schedule(state.step)

        def changed(before: tuple[Params, Any, Carry, Any]) -> tuple[Params, Any, Carry, Any]:
            _, opt_state, _, average = before
            direction, opt_state = optimizer.update(gradients, opt_state, shares)
            moved = jax.tree.map(lambda p, d: p - rate * d, shares, direction)
            average = averaging.follow(average, moved, state.step)
            return keep(moved), opt_state, carry, average

        before = (state.params, state.opt_state, state.carry, state.average)
        params, opt_state, carry_after, average = _if(finite, changed, before)
        metrics = UpdateMetrics(nats, accuracy, norm, rate, 1.0 - finite.astype(jnp.float32))
        after = TrainState(state.step + 1, params, opt_state, carry_after, state.key, average)
        return after, metrics

    return update


def _if(condition: jax.Array, change: Callable[[Any], Any], value: Any) -> Any:
    """`change(value)` if the condition, a scalar, holds; else `value`.

    On a CPU by a branch: a selection between new and old keeps both, and so would copy all of the
    parameters and of the optimizer's state in every update. On an accelerator by a selection: there
    a branch waits for the host.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(condition, change, lambda value: value, value)
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), change(value), value)


def make_dispatch(
    update: Callable[[TrainState, jax.Array], tuple[TrainState, UpdateMetrics]],
    streams: Streams,
    max_updates: int,
    *,
    on_device: bool,
) -> Any:
    """A jitted function that makes `count` ≤ `max_updates` updates, the state donated.

    The count is an argument and no constant, so that one compiled program serves every length, and
    the parameters do not depend on how a run was cut into dispatches.

    Returns:
      With the text on the device: (state, count, offset, first_places, text uint8 [N]) →
      (state, metrics [K]); else (state, count, windows uint8 [K, T+1, B]) → the same. Metrics
      beyond `count` are zero.
    """

    def run(
        state: TrainState, count: jax.Array, window_of: Callable[[jax.Array], jax.Array]
    ) -> tuple[TrainState, UpdateMetrics]:
        def body(index: jax.Array, loop: tuple[TrainState, UpdateMetrics]) -> Any:
            state, buffers = loop
            state, metrics = update(state, window_of(index))
            return state, jax.tree.map(lambda b, m: b.at[index].set(m), buffers, metrics)

        buffers = UpdateMetrics(*(jnp.zeros(max_updates) for _ in UpdateMetrics._fields))
        return jax.lax.fori_loop(0, count, body, (state, buffers))

    def from_device(
        state: TrainState, count: jax.Array, offset: jax.Array, first: jax.Array, text: jax.Array
    ) -> tuple[TrainState, UpdateMetrics]:
        def window_of(index: jax.Array) -> jax.Array:
            moved = index.astype(jnp.uint32) * jnp.uint32(streams.window_length)
            return streams.window_on_device(text, (offset + moved) % streams.num_bytes, first)

        return run(state, count, window_of)

    def from_host(
        state: TrainState, count: jax.Array, windows: jax.Array
    ) -> tuple[TrainState, UpdateMetrics]:
        return run(state, count, lambda index: windows[index])

    return jax.jit(from_device if on_device else from_host, donate_argnums=0)
