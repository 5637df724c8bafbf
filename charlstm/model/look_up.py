"""A one-hot symbol times a matrix is the look-up of a row; its gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.gradients import with_gradient
from charlstm.runtime.shardings import dimension, specify
from charlstm.runtime.targets import Target


def _look_up_forward(target: Target, table: jax.Array, symbols: jax.Array) -> tuple[jax.Array, Any]:
    """Returns rows [T, B, …] of a table [V, …] by symbols [T, B], by the way best for `target`."""
    split = [dimension(table, axis) for axis in range(1, table.ndim)]
    spec = specify(dimension(symbols, 0), dimension(symbols, 1), *split)
    if target.is_gpu and table.dtype == jnp.bfloat16 and symbols.size >= table.shape[0]:
        # A gather stores at a tenth of the memory's rate. The product is exact: in each sum one
        # term is not zero.
        one_hot = jax.nn.one_hot(symbols, table.shape[0], dtype=table.dtype)
        rows = jnp.einsum("tbv,v...->tb...", one_hot, table, out_sharding=spec)
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
            "tbv,tb...->v...",
            one_hot,
            gradient,
            preferred_element_type=jnp.float32,
            out_sharding=specify(*(dimension(table, axis) for axis in range(table.ndim))),
        )
    return d_table.astype(table.dtype), None


look_up = with_gradient(_look_up_forward, _look_up_backward, num_static=1)


def add_rows(symbols: jax.Array, rows: jax.Array, num_symbols: int) -> jax.Array:
    """Returns the gradient of a table of which `symbols` chose the rows: for CPUs.

    The product with the one-hot symbols has V multiply-adds where this has one addition; but an
    accelerator would add up row after row where it has the product at once.

    Args:
      symbols: [T, B], integers below V.
      rows: [T, B, …], their gradients.
      num_symbols: V.

    Returns:
      [V, …] float32.
    """

    def add(symbols: jax.Array, rows: jax.Array) -> jax.Array:
        flat = rows.reshape(-1, *rows.shape[2:]).astype(jnp.float32)
        table = jnp.zeros((num_symbols, *rows.shape[2:]), jnp.float32)
        return table.at[symbols.reshape(-1)].add(flat, mode="promise_in_bounds")

    axis = dimension(symbols, 1)
    if axis is None:
        return add(symbols, rows)
    # Each device adds up the rows of its own streams, and then all devices add theirs.
    split = [dimension(rows, place) for place in range(2, rows.ndim)]
    return jax.shard_map(
        lambda symbols, rows: jax.lax.psum(add(symbols, rows), axis),
        in_specs=(jax.P(None, axis), jax.P(None, axis, *split)),
        out_specs=jax.P(None, *split),
    )(symbols, rows)
