"""A stack of LSTM layers run one after the other: what recurrences that work by layers share."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from charlstm.model.recurrence.look_up import look_up
from charlstm.sharding import dimension, specify


class Layer(Protocol):
    """Runs a window through one layer."""

    def __call__(
        self,
        compute_dtype: Any,
        projection: jax.Array,
        weight_hh: jax.Array,
        h: jax.Array,
        c: jax.Array,
        /,
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


def run_layers(
    layer: Layer,
    layers: list[dict[str, jax.Array]],
    projection: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack, each layer by `layer`.

    See `Recurrence` for the other arguments and the result.
    """
    h_last, c_last = [], []
    for index, weights in enumerate(layers):
        outputs, h, c = layer(
            compute_dtype, projection, weights["weight_hh"], carry["h"][index], carry["c"][index]
        )
        h_last.append(h)
        c_last.append(c)
        if index + 1 < len(layers):
            above = layers[index + 1]
            passed = outputs if masks is None else outputs * masks[index].astype(compute_dtype)
            projection = project(compute_dtype, passed, above["weight_ih"], above["bias"])
    return outputs, {"h": jnp.stack(h_last), "c": jnp.stack(c_last)}


def project_inputs(
    compute_dtype: Any, inputs: jax.Array, weight_ih: jax.Array, bias: jax.Array
) -> jax.Array:
    """The input's share of a layer's pre-activations, bias included.

    Args:
      compute_dtype: of the product's inputs and of the result.
      inputs: symbols [T, B], which look up rows of `weight_ih`, or [T, B, F] in the compute dtype.
      weight_ih: [V, 4H] or [F, 4H] float32.
      bias: [4H] float32.

    Returns:
      [T, B, 4H] in the compute dtype.
    """
    if inputs.ndim == 3:
        return project(compute_dtype, inputs, weight_ih, bias)
    # The bias is folded into the V rows of the table: T·B additions fewer.
    return look_up((weight_ih + bias).astype(compute_dtype), inputs)


def project_first(
    layers: list[dict[str, jax.Array]], inputs: jax.Array, compute_dtype: Any
) -> jax.Array:
    """`project_inputs` of the lowest layer of a stack."""
    return project_inputs(compute_dtype, inputs, layers[0]["weight_ih"], layers[0]["bias"])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def project(
    compute_dtype: Any, inputs: jax.Array, weight_ih: jax.Array, bias: jax.Array
) -> jax.Array:
    """A window's input projection, one product.

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
    return _project_forward(compute_dtype, inputs, weight_ih, bias)[0]


def _project_forward(
    compute_dtype: Any, inputs: jax.Array, weight_ih: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
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


project.defvjp(_project_forward, _project_backward)
