"""The network one time step at a time, for sampling: the weights laid out once, then many steps.

Texts are columns, [features, B], and a layer's input and last output one column of them, so that a
layer is one product a step with a weight that lies in memory the way it is read. The parameters of
training would be laid out anew in every call.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from charlstm.model.cell import Layer
from charlstm.model.network import Network
from charlstm.model.parameters import Params, layers_of
from charlstm.model.stack import Carry, State, walk
from charlstm.runtime.shardings import dimension, specify
from charlstm.runtime.targets import Target

# A CPU reads a bfloat16 weight of as many numbers faster for two columns than for one: XLA (jaxlib
# 0.10) reads it at a quarter of the memory's rate for one. Smaller ones stay in the cache. A model
# with such a weight doubles the column in all its products, for they are added up in another order
# for one column than for any other number: then a text's bits do not depend on that number.
_SLOW_FOR_A_COLUMN = 2**20


class DecodeWeights(NamedTuple):
    """The parameters as a step reads them, weights in the compute dtype."""

    table: jax.Array  # [V, 4H], the first layer's rows by symbol, its bias included
    layers: list[jax.Array]  # [4H, H] of the first layer, [4H, 2H] of the others
    vectors: list[Layer]  # float32, of each layer: its bias and other vectors as columns
    head: jax.Array  # [V, H]
    head_bias: jax.Array  # [V] float32


class DecodeState(NamedTuple):
    """The state of B texts, every layer a column; float32."""

    h: list[jax.Array]  # of each layer [H, B]
    c: list[jax.Array]  # of each layer [H, B]

    @classmethod
    def of(cls, carry: Carry) -> "DecodeState":
        """Returns the state of a carry as training has it, [L, B, H]."""
        columns = jax.tree.map(lambda state: [layer.T for layer in state], dict(carry))
        return cls(columns["h"], columns["c"])

    def carry(self) -> Carry:
        """Is the inverse of `of`."""
        h, c = (jnp.stack([layer.T for layer in layers]) for layers in self)
        return {"h": h, "c": c}


def decode_weights(network: Network, params: Params) -> DecodeWeights:
    """Lays the parameters out for `decode_step`; to be called under `jax.jit`."""
    dtype = network.compute.dtype
    layers = layers_of(params)
    first, *upper = layers
    joined = [jnp.concatenate([layer["weight_ih"], layer["weight_hh"]]) for layer in upper]
    table = network.cell.input_share(first, first["weight_ih"], -1)
    return DecodeWeights(
        table.astype(dtype),
        [weight.T.astype(dtype) for weight in (first["weight_hh"], *joined)],
        [
            {name: array[:, None] for name, array in layer.items() if array.ndim == 1}
            for layer in layers
        ],
        params["head"]["kernel"].T.astype(dtype),
        params["head"]["bias"],
    )


def decode_step(
    network: Network, weights: DecodeWeights, state: DecodeState, symbols: jax.Array
) -> tuple[jax.Array, DecodeState]:
    """Makes one time step of B texts.

    Args:
      network: the cell and the connections.
      weights: of `decode_weights`.
      state: before the step.
      symbols: [B], integers below V, what was read last.

    Returns:
      The logits of what comes next [V, B] float32, and the state after.
    """
    cell, dtype = network.cell, weights.head.dtype
    doubles = _doubles(network.compute.target, weights)
    rows = specify(dimension(symbols, 0), None)
    looked_up = weights.table.at[symbols.astype(jnp.int32)].get(
        out_sharding=rows, mode="promise_in_bounds"
    )

    def run_layer(index: int, inputs: jax.Array, state: State) -> tuple[jax.Array, State]:
        (h, c), weight, vectors = state, weights.layers[index], weights.vectors[index]
        if index == 0:
            share, recurrent = inputs, _product(weight, h, doubles)
        elif cell.is_additive:
            column = jnp.concatenate([inputs.astype(dtype), h.astype(dtype)])
            # Made real: gathered inside the product, it would be copied for every block of it.
            column = jax.lax.optimization_barrier(column)
            share, recurrent = vectors["bias"], _product(weight, column, doubles)
        else:
            size = inputs.shape[0]
            share = cell.input_share(vectors, _product(weight[:, :size], inputs, doubles), 0)
            recurrent = _product(weight[:, size:], h, doubles)
        own = cell.step_parameters(vectors)
        h, c, _ = cell.forward(own, share, recurrent, c, 0, jnp.float32)
        return h, (h, c)

    states = list(zip(state.h, state.c, strict=True))
    first = looked_up.T.astype(jnp.float32)
    total, after = walk(run_layer, first, states, None, network.connections)
    logits = _product(weights.head, total, doubles) + weights.head_bias[:, None]
    return logits, DecodeState([h for h, _ in after], [c for _, c in after])


def _doubles(target: Target, weights: DecodeWeights) -> bool:
    """Returns True if the column of a single text is to be doubled."""
    largest = max(weight.size for weight in weights.layers)
    return target.is_cpu and weights.head.dtype == jnp.bfloat16 and largest >= _SLOW_FOR_A_COLUMN


def _product(weight: jax.Array, columns: jax.Array, doubles: bool) -> jax.Array:
    """[G, B] float32, the product of a weight [G, F] and columns [F, B]."""
    columns = columns.astype(weight.dtype)
    if columns.shape[1] == 1 and doubles:
        pair = jax.lax.optimization_barrier(jnp.concatenate([columns, columns], axis=1))
        return jnp.matmul(weight, pair, preferred_element_type=jnp.float32)[:, :1]
    return jnp.matmul(weight, columns, preferred_element_type=jnp.float32)
