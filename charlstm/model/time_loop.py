"""`jax.lax.scan` over time steps, at full speed in bfloat16 on a CPU too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.runtime.targets import Target

# Time steps in one turn of XLA's loop on a GPU, which launches every kernel by itself. What is
# stacked in these steps is stored by one kernel, and they share the loop's counter. Measured on an
# H200, 3 x LSTM(1024), 256 streams: 20.1 ms an update instead of 25.5 ms.
UNROLL_ON_GPU = 8


def scan(
    target: Target,
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    inputs: Any,
    *,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Does what `jax.lax.scan(step, state, inputs, reverse=reverse)` does.

    XLA's CPU backend (jaxlib 0.10) stores a bfloat16 slice by converting the whole array to float32
    and back, at every time step. There arrays of 16-bit floats are read and stored as their bits.
    """
    if not target.is_cpu:
        unroll = UNROLL_ON_GPU if target.is_gpu else 1
        return jax.lax.scan(step, state, inputs, reverse=reverse, unroll=unroll)
    dtypes = None

    def step_on_bits(state: Any, inputs: Any) -> tuple[Any, Any]:
        nonlocal dtypes
        state, outputs = step(state, jax.tree.map(_from_bits, inputs, input_dtypes))
        dtypes = jax.tree.map(lambda array: array.dtype, outputs)
        return state, jax.tree.map(_to_bits, outputs)

    input_dtypes = jax.tree.map(lambda array: array.dtype, inputs)
    bits = jax.tree.map(_to_bits, inputs)
    state, outputs = jax.lax.scan(step_on_bits, state, bits, reverse=reverse)
    return state, jax.tree.map(_from_bits, outputs, dtypes)


def _to_bits(array: jax.Array) -> jax.Array:
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize == 2:
        return jax.lax.bitcast_convert_type(array, jnp.uint16)
    return array


def _from_bits(array: jax.Array, dtype: Any) -> jax.Array:
    return array if array.dtype == dtype else jax.lax.bitcast_convert_type(array, dtype)
