"""The dense products of a window: the input projection and the head, gradients written by hand."""

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


def _head_forward(
    outputs: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the logits of a window, one product.

    Its gradient keeps the two products in the dtype of `outputs`, as that of the input projection.

    Args:
      outputs: [T, B, H] in the compute dtype.
      kernel: [H, V] float32.
      bias: [V] float32.

    Returns:
      `outputs · kernel + bias` [T, B, V] float32.
    """
    product = jnp.einsum(
        "tbh,hv->tbv", outputs, kernel.astype(outputs.dtype), preferred_element_type=jnp.float32
    )
    return product + bias, (outputs, kernel)


def _head_backward(
    residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    outputs, kernel = residuals
    d_bias = jnp.sum(gradient, axis=(0, 1))
    gradient = gradient.astype(outputs.dtype)
    d_outputs = jnp.einsum(
        "tbv,hv->tbh",
        gradient,
        kernel.astype(outputs.dtype),
        preferred_element_type=jnp.float32,
    )
    d_kernel = jnp.einsum(
        "tbh,tbv->hv",
        outputs,
        gradient,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(kernel, 0), dimension(kernel, 1)),
    )
    return d_outputs.astype(outputs.dtype), d_kernel, d_bias


head = with_gradient(_head_forward, _head_backward)
