"""The LSTM stack layer by layer, each layer one scan over time with a hand-written gradient.

What makes it fast:
- The input projection of a whole window is one product before the loop.
- The four gates are one product [B, H]·[H, 4H] a time step; weights are cast before the loop.
- The forward loop saves the factors of its own derivative, so that the backward loop is a few
  multiplications and one product a time step.
- The gradient of `weight_hh` is one product over the whole window after the loop, where automatic
  differentiation would add up an [H, 4H] matrix at every time step.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.recurrence import gates, time_loop
from charlstm.model.recurrence.stack import project_first, run_layers
from charlstm.sharding import dimension, specify


def scan_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result."""
    projection = project_first(layers, inputs, compute_dtype)
    return run_layers(scan_layer, layers, projection, carry, masks, compute_dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_layer(
    compute_dtype: Any,
    projection: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer.

    Args:
      compute_dtype: of the products' inputs and of the saved activations.
      projection: [T, B, 4H], the input's share of the pre-activations.
      weight_hh: [H, 4H] float32.
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    return _forward(compute_dtype, projection, weight_hh, h, c)[0]


def _forward(
    compute_dtype: Any, projection: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    weight = weight_hh.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], z: jax.Array) -> Any:
        h, c = state
        z = z.astype(jnp.float32) + jnp.matmul(
            h.astype(compute_dtype), weight, preferred_element_type=jnp.float32
        )
        h, c, factors = gates.forward(z, c, axis=-1)
        saved = jax.tree.map(lambda factor: factor.astype(compute_dtype), factors)
        return (h, c), (h.astype(compute_dtype), saved)

    (h_last, c_last), (outputs, factors) = time_loop.scan(step, (h, c), projection)
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    compute_dtype: Any, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, factors = residuals
    dz, dh, dc = backward_loop(compute_dtype, weight_hh, factors, gradients)
    return dz, weight_gradient(before(h_first, outputs), dz, weight_hh), dh, dc


scan_layer.defvjp(_forward, _backward)


def backward_loop(
    compute_dtype: Any,
    weight_hh: jax.Array,
    factors: gates.Factors,
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The backward pass through time of one layer.

    Args:
      compute_dtype: of the product's inputs and of dz.
      weight_hh: [H, 4H] float32.
      factors: of the forward pass, each [T, B, H].
      gradients: of the outputs [T, B, H], and of h and c after the window [B, H].

    Returns:
      The gradients of the pre-activations, dz [T, B, 4H], and of h and c before the window.
    """
    d_outputs, dh_last, dc_last = gradients
    weight_transposed = weight_hh.T.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], inputs: Any) -> Any:
        dh, dc = state
        d_output, factors = inputs
        dz_gates, dc = gates.backward(dh + d_output.astype(jnp.float32), dc, factors)
        dz = jnp.concatenate(dz_gates, axis=-1).astype(compute_dtype)
        dh = jnp.matmul(dz, weight_transposed, preferred_element_type=jnp.float32)
        return (dh, dc), dz

    (dh, dc), dz = time_loop.scan(step, (dh_last, dc_last), (d_outputs, factors), reverse=True)
    return dz, dh, dc


def before(h: jax.Array, outputs: jax.Array) -> jax.Array:
    """What each time step of a window met as its last output, [T, B, H]."""
    return jnp.concatenate([h.astype(outputs.dtype)[None], outputs[:-1]])


def weight_gradient(inputs: jax.Array, dz: jax.Array, weight: jax.Array) -> jax.Array:
    """The gradient of a weight [F, 4H] that met `inputs` [T, B, F]: one product, float32."""
    return jnp.einsum(
        "tbh,tbg->hg",
        inputs,
        dz,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(weight, 0), dimension(weight, 1)),
    )
