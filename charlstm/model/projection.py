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
    del compute_dtype  # that of the inputs
    inputs, weight_ih = residuals
    d_inputs, d_weight = _product_backward(inputs, weight_ih, gradient)
    return d_inputs, d_weight, jnp.sum(gradient, axis=(0, 1), dtype=jnp.float32)


def _product_backward(
    inputs: jax.Array, weight: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of a product with respect to its two factors.

    Args:
      inputs: [T, B, H] in the compute dtype.
      weight: [H, G] float32.
      gradient: [T, B, G] of the product, in the compute dtype.

    Returns:
      [T, B, H] in the compute dtype, and [H, G] float32.
    """
    d_inputs = jnp.einsum(
        "tbg,hg->tbh", gradient, weight.astype(inputs.dtype), preferred_element_type=jnp.float32
    )
    d_weight = jnp.einsum(
        "tbh,tbg->hg",
        inputs,
        gradient,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(weight, 0), dimension(weight, 1)),
    )
    return d_inputs.astype(inputs.dtype), d_weight


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
    d_outputs, d_kernel = _product_backward(outputs, kernel, gradient.astype(outputs.dtype))
    return d_outputs, d_kernel, d_bias


head = with_gradient(_head_forward, _head_backward)
