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
from charlstm.sharding import dimension, specify


class StepWeights(NamedTuple):
    """The parameters as a step reads them, weights in the compute dtype."""

    table: jax.Array  # [V, 4H], the first layer's rows by symbol, its bias included
    layers: list[jax.Array]  # [4H, H] of the first layer, [4H, 2H] of the others
    biases: list[jax.Array]  # [4H] float32, of the layers above the first
    head: jax.Array  # [V, H]
    head_bias: jax.Array  # [V] float32


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
    first, *upper = language_model.layers_of(params)
    joined = [jnp.concatenate([layer["weight_ih"], layer["weight_hh"]]) for layer in upper]
    return StepWeights(
        (first["weight_ih"] + first["bias"]).astype(compute_dtype),
        [weight.T.astype(compute_dtype) for weight in (first["weight_hh"], *joined)],
        [layer["bias"] for layer in upper],
        params["head"]["kernel"].T.astype(compute_dtype),
        params["head"]["bias"],
    )


def step(weights: StepWeights, state: Columns, symbols: jax.Array) -> tuple[jax.Array, Columns]:
    """One time step of B texts.

    Args:
      weights: of `step_weights`.
      state: before the step.
      symbols: [B], integers below V, what was read last.

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
    for index, weight in enumerate(weights.layers):
        if index > 0:
            below = after.h[-1].astype(dtype)
            column = jnp.concatenate([below, state.h[index].astype(dtype)])
            # Made real: gathered inside the product, it would be copied for every block of it.
            column = jax.lax.optimization_barrier(column)
            share = weights.biases[index - 1][:, None]
        z = share + jnp.matmul(weight, column, preferred_element_type=jnp.float32)
        h, c, _ = gates.forward(z, state.c[index], axis=0)
        after.h.append(h)
        after.c.append(c)
    top = after.h[-1].astype(dtype)
    logits = jnp.matmul(weights.head, top, preferred_element_type=jnp.float32)
    return logits + weights.head_bias[:, None], after
