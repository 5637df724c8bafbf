"""The input projection of a window: one product, its gradient written by hand."""

from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.gradients import with_gradient
from charlstm.runtime.shardings import dimension, specify


def _project_forward(
    compute_dtype: Any, inputs: jax.Array, weight_ih: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns a window's input projection, one product.

    The gradient is written by hand to keep its two products in the compute dtype: automatic
    differentiation multiplies a float32 gradient with bfloat16 inputs, at the speed of float32,
    and then rounds the weights' gradient to bfloat16.

    Args:
      compute_dtype: of the product's inputs and of the result.
      inputs: [T, B, H] in the compute dtype.
      weight_ih: [H, 4H] float32.
      bias: [4H] float32.

    Returns:
      `inputs · weight_ih + bias` [T, B, 4H] in the compute dtype.
    """
    product = jnp.einsum(
        "tbh,hg->tbg",
        inputs,
        weight_ih.astype(compute_dtype),
        preferred_element_type=jnp.float32,
    )
    return (product + bias).astype(compute_dtype), (inputs, weight_ih)


def _project_backward(
    compute_dtype: Any, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    inputs, weight_ih = residuals
    d_inputs = jnp.einsum(
        "tbg,hg->tbh",
        gradient,
        weight_ih.astype(compute_dtype),
        preferred_element_type=jnp.float32,
    )
    d_weight = jnp.einsum(
        "tbh,tbg->hg",
        inputs,
        gradient,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(weight_ih, 0), dimension(weight_ih, 1)),
    )
    d_bias = jnp.sum(gradient, axis=(0, 1), dtype=jnp.float32)
    return d_inputs.astype(compute_dtype), d_weight, d_bias


project = with_gradient(_project_forward, _project_backward, num_static=1)
