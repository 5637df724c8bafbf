"""The scan of `scan.py` for when memory limits the batch: of a window it keeps h and c alone.

The scan keeps seven numbers of every cell and time step, this one two. Its backward pass makes the
pre-activations again, those of many time steps at once, before it walks back through these steps.
That costs the two products of the forward pass once more: a third more arithmetic, none of it
serial.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.recurrence import gates, time_loop
from charlstm.model.recurrence.scan import backward_loop, before, weight_gradient
from charlstm.model.recurrence.stack import project_inputs

# Time steps that are made again at once: enough for large products, few to be kept.
LARGEST_CHUNK = 32


def scan_recompute_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result."""
    h_last, c_last = [], []
    for index, layer in enumerate(layers):
        if index > 0 and masks is not None:
            inputs = inputs * masks[index - 1].astype(compute_dtype)
        weights = layer["weight_ih"], layer["bias"], layer["weight_hh"]
        inputs, h, c = recomputing_layer(
            compute_dtype, inputs, *weights, carry["h"][index], carry["c"][index]
        )
        h_last.append(h)
        c_last.append(c)
    return inputs, {"h": jnp.stack(h_last), "c": jnp.stack(c_last)}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recomputing_layer(
    compute_dtype: Any,
    inputs: jax.Array,
    weight_ih: jax.Array,
    bias: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer.

    Args:
      compute_dtype: of the products' inputs and of the outputs.
      inputs: symbols [T, B], which look up rows of `weight_ih`, or [T, B, F] in the compute dtype.
      weight_ih: [V, 4H] or [F, 4H] float32.
      bias: [4H] float32.
      weight_hh: [H, 4H] float32.
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    return _forward(compute_dtype, inputs, weight_ih, bias, weight_hh, h, c)[0]


def _forward(
    compute_dtype: Any,
    inputs: jax.Array,
    weight_ih: jax.Array,
    bias: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    weight = weight_hh.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], z: jax.Array) -> Any:
        h, c = state
        z = z.astype(jnp.float32) + _times(h.astype(compute_dtype), weight)
        h, c, _ = gates.forward(z, c, axis=-1)
        return (h, c), (h.astype(compute_dtype), c)

    projection = project_inputs(compute_dtype, inputs, weight_ih, bias)
    (h_last, c_last), (outputs, cells) = time_loop.scan(step, (h, c), projection)
    # Cell states stay float32: the gradient is that of the numbers that were computed.
    kept = (inputs, weight_ih, bias, weight_hh, h, c, outputs, cells)
    return (outputs, h_last, c_last), kept


def _backward(
    compute_dtype: Any,
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[Any, ...]:
    inputs, weight_ih, bias, weight_hh, h, c, outputs, cells = residuals
    d_outputs, dh_last, dc_last = gradients
    weight = weight_hh.astype(compute_dtype)
    length = len(outputs)
    chunk = max(size for size in range(1, LARGEST_CHUNK + 1) if length % size == 0)

    def run_chunk(state: tuple[jax.Array, jax.Array], kept: tuple[jax.Array, ...]) -> Any:
        inputs, before_outputs, before_cells, d_outputs = kept
        projection = project_inputs(compute_dtype, inputs, weight_ih, bias)
        z = projection.astype(jnp.float32) + _times(before_outputs, weight)
        factors = gates.forward(z, before_cells, axis=-1)[2]
        factors = jax.tree.map(lambda factor: factor.astype(compute_dtype), factors)
        dz, dh, dc = backward_loop(compute_dtype, weight_hh, factors, (d_outputs, *state))
        return (dh, dc), dz

    before_outputs = before(h, outputs)
    kept = (inputs, before_outputs, jnp.concatenate([c[None], cells[:-1]]), d_outputs)
    chunks = tuple(array.reshape(-1, chunk, *array.shape[1:]) for array in kept)
    (dh, dc), dz = time_loop.scan(run_chunk, (dh_last, dc_last), chunks, reverse=True)
    dz = dz.reshape(length, *dz.shape[2:])
    if inputs.ndim == 2:  # symbols have no gradient
        project_these = partial(project_inputs, compute_dtype, inputs)
        of_inputs: Any = (None, *jax.vjp(project_these, weight_ih, bias)[1](dz))
    else:
        of_inputs = jax.vjp(partial(project_inputs, compute_dtype), inputs, weight_ih, bias)[1](dz)
    return *of_inputs, weight_gradient(before_outputs, dz, weight_hh), dh, dc


recomputing_layer.defvjp(_forward, _backward)


def _times(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)
