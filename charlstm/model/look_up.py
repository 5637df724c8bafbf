"""A one-hot symbol times a matrix is the look-up of a row; its gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.gradients import with_gradient
from charlstm.runtime.shardings import dimension, specify
from charlstm.runtime.targets import Target


def _look_up_forward(target: Target, table: jax.Array, symbols: jax.Array) -> tuple[jax.Array, Any]:
    """Returns rows [T, B, G] of a table [V, G] by symbols [T, B], by the way best for `target`."""
    spec = specify(dimension(symbols, 0), dimension(symbols, 1), dimension(table, 1))
    if target.is_gpu and table.dtype == jnp.bfloat16 and symbols.size >= table.shape[0]:
        # A gather stores at a tenth of the memory's rate. The product is exact: in each sum one
        # term is not zero.
        one_hot = jax.nn.one_hot(symbols, table.shape[0], dtype=table.dtype)
        rows = jnp.einsum("tbv,vg->tbg", one_hot, table, out_sharding=spec)
    else:
        rows = table.at[symbols.astype(jnp.int32)].get(out_sharding=spec, mode="promise_in_bounds")
    return rows, (table, symbols)


def _look_up_backward(
    target: Target, residuals: Any, gradient: jax.Array
) -> tuple[jax.Array, None]:
    table, symbols = residuals
    if target.is_cpu:
        d_table = add_rows(symbols, gradient, table.shape[0])
    else:
        one_hot = jax.nn.one_hot(symbols, table.shape[0], dtype=gradient.dtype)
        d_table = jnp.einsum(
            "tbv,tbg->vg",
            one_hot,
            gradient,
            preferred_element_type=jnp.float32,
            out_sharding=specify(dimension(table, 0), dimension(table, 1)),
        )
    return d_table.astype(table.dtype), None


look_up = with_gradient(_look_up_forward, _look_up_backward, num_static=1)


def add_rows(symbols: jax.Array, rows: jax.Array, num_symbols: int) -> jax.Array:
    """Returns the gradient of a table of which `symbols` chose the rows: for CPUs.

    The product with the one-hot symbols has V multiply-adds where this has one addition; but an
    accelerator would add up row after row where it has the product at once.

    Args:
      symbols: [T, B], integers below V.
      rows: [T, B, G], their gradients.
      num_symbols: V.

    Returns:
      [V, G] float32.
    """

    def add(symbols: jax.Array, rows: jax.Array) -> jax.Array:
        flat = rows.reshape(-1, rows.shape[-1]).astype(jnp.float32)
        table = jnp.zeros((num_symbols, rows.shape[-1]), jnp.float32)
        return table.at[symbols.reshape(-1)].add(flat, mode="promise_in_bounds")

    axis = dimension(symbols, 1)
    if axis is None:
        return add(symbols, rows)
    # Each device adds up the rows of its own streams, and then all devices add theirs.
    return jax.shard_map(
        lambda symbols, rows: jax.lax.psum(add(symbols, rows), axis),
        in_specs=(jax.P(None, axis), jax.P(None, axis, None)),
        out_specs=jax.P(),
    )(symbols, rows)
