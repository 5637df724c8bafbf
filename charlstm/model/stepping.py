"""The network one time step at a time, for sampling: the weights laid out once, then many steps.

Texts are columns, [features, B], and a layer's input and last output one column of them, so that a
layer is one product a step with a weight that lies in memory the way it is read. The parameters of
training would be laid out anew in every call.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry, gates
from charlstm.model.recurrence.layer_norm import (
    Norms,
    cell,
    normalise,
    normalised_table,
    preactivations,
)
from charlstm.sharding import dimension, specify


class StepWeights(NamedTuple):
    """The parameters as a step reads them, weights in the compute dtype."""

    table: jax.Array  # [V, 4H], the first layer's rows by symbol, its bias included
    layers: list[jax.Array]  # [4H, H] of the first layer, [4H, 2H] of the others
    biases: list[jax.Array]  # [4H] float32, of the layers above the first
    head: jax.Array  # [V, H]
    head_bias: jax.Array  # [V] float32
    # With layer normalisation only: of each layer, as columns [4H, 1] and [H, 1]; and gain_ih of
    # the layers above the first, [4H, 1].
    norms: list[Norms]
    input_gains: list[jax.Array]


class Columns(NamedTuple):
    """The state of B texts, every layer a column; float32."""

    h: list[jax.Array]  # of each layer [H, B]
    c: list[jax.Array]  # of each layer [H, B]

    @classmethod
    def of(cls, carry: Carry) -> "Columns":
        """From the state as training has it, [L, B, H]."""
        columns = jax.tree.map(lambda state: [layer.T for layer in state], dict(carry))
        return cls(columns["h"], columns["c"])

    def carry(self) -> Carry:
        """The state as training has it, [L, B, H]."""
        h, c = (jnp.stack([layer.T for layer in layers]) for layers in self)
        return {"h": h, "c": c}


def step_weights(params: Params, compute_dtype: Any = jnp.float32) -> StepWeights:
    """Lays the parameters out for `step`; to be called under `jax.jit`."""
    layers = language_model.layers_of(params)
    first, *upper = layers
    joined = [jnp.concatenate([layer["weight_ih"], layer["weight_hh"]]) for layer in upper]
    normalised = language_model.is_normalised(params)
    table = normalised_table(first) if normalised else first["weight_ih"] + first["bias"]
    norms = [jax.tree.map(_column, Norms.of(layer)) for layer in layers] if normalised else []
    return StepWeights(
        table.astype(compute_dtype),
        [weight.T.astype(compute_dtype) for weight in (first["weight_hh"], *joined)],
        [layer["bias"] for layer in upper],
        params["head"]["kernel"].T.astype(compute_dtype),
        params["head"]["bias"],
        norms,
        [_column(layer["gain_ih"]) for layer in upper] if normalised else [],
    )


def _column(vector: jax.Array) -> jax.Array:
    return vector[:, None]


def step(
    weights: StepWeights, state: Columns, symbols: jax.Array, connections: str = "plain"
) -> tuple[jax.Array, Columns]:
    """One time step of B texts.

    Args:
      weights: of `step_weights`.
      state: before the step.
      symbols: [B], integers below V, what was read last.
      connections: past layers, as in `model.connections`.

    Returns:
      The logits of what comes next [V, B] float32, and the state after.
    """
    dtype = weights.head.dtype
    rows = specify(dimension(symbols, 0), None)
    looked_up = weights.table.at[symbols.astype(jnp.int32)].get(
        out_sharding=rows, mode="promise_in_bounds"
    )
    after = Columns([], [])
    column, share = state.h[0].astype(dtype), looked_up.T.astype(jnp.float32)
    read = total = None
    for index, weight in enumerate(weights.layers):
        if weights.norms:
            h, c = _normalised_layer(weights, index, read, share, state)
        else:
            if read is not None:
                column = jnp.concatenate([read.astype(dtype), state.h[index].astype(dtype)])
                # Made real: gathered inside the product, it would be copied for every block of it.
                column = jax.lax.optimization_barrier(column)
                share = weights.biases[index - 1][:, None]
            z = share + jnp.matmul(weight, column, preferred_element_type=jnp.float32)
            h, c, _ = gates.forward(z, state.c[index], axis=0)
        after.h.append(h)
        after.c.append(c)
        total = h if total is None or connections == "plain" else total + h
        read = total if connections == "residual" else h
    assert total is not None
    logits = jnp.matmul(weights.head, total.astype(dtype), preferred_element_type=jnp.float32)
    return logits + weights.head_bias[:, None], after


def _normalised_layer(
    weights: StepWeights, index: int, read: jax.Array | None, share: jax.Array, state: Columns
) -> tuple[jax.Array, jax.Array]:
    """A layer that normalises: its h and c after the step.

    The input's and the state's shares are normalised each by itself, so that they are two products.

    Args:
      weights: of `step_weights`.
      index: the layer's.
      read: the layer's input [H, B]; None in the first.
      share: the first layer's share of its input, [4H, B].
      state: before the step.
    """
    weight, norms = weights.layers[index], weights.norms[index]
    if read is not None:
        size = read.shape[0]
        product = _product(weight[:, :size], read)
        weight = weight[:, size:]
        share = normalise(product, weights.input_gains[index - 1], axis=0)
        share = share + weights.biases[index - 1][:, None]
    recurrent = _product(weight, state.h[index])
    z = preactivations(norms, share, recurrent, axis=0)
    return cell(norms, z, state.c[index], axis=0)


def _product(weight: jax.Array, column: jax.Array) -> jax.Array:
    return jnp.matmul(weight, column.astype(weight.dtype), preferred_element_type=jnp.float32)
