"""The scan of `scan.py` with streams as columns: for wide layers on a CPU.

A window is [features, T, B] and a time step the product [4H, H]·[H, B]. Where H is large, CPUs
compute that up to twice as fast as [B, H]·[H, 4H], provided that the weight lies in memory that
way; where H is small the narrow columns cost more than they gain.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.recurrence import gates
from charlstm.sharding import dimension, specify


def scan_columns_stack(
    layers: list[dict[str, jax.Array]],
    projection: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result."""
    h_last, c_last = [], []
    projection = projection.transpose(2, 0, 1)
    for index, layer in enumerate(layers):
        outputs, h, c = scan_columns_layer(
            compute_dtype, projection, layer["weight_hh"], carry["h"][index].T, carry["c"][index].T
        )
        h_last.append(h.T)
        c_last.append(c.T)
        if index + 1 < len(layers):
            above = layers[index + 1]
            passed = outputs
            if masks is not None:
                passed = outputs * masks[index].astype(compute_dtype).transpose(2, 0, 1)
            product = project_columns(above["weight_ih"].astype(compute_dtype), passed)
            projection = (product + above["bias"][:, None, None]).astype(compute_dtype)
    return outputs.transpose(1, 2, 0), {"h": jnp.stack(h_last), "c": jnp.stack(c_last)}


@jax.custom_vjp
def project_columns(weight: jax.Array, inputs: jax.Array) -> jax.Array:
    """`weight`ᵀ · `inputs` at every place of a window.

    Args:
      weight: [F, G], in the compute dtype.
      inputs: [F, T, B], in the compute dtype.

    Returns:
      [G, T, B] float32.
    """
    return _product("gf,ftb->gtb", _transposed(weight), inputs)


def _project_forward(weight: jax.Array, inputs: jax.Array) -> tuple[jax.Array, Any]:
    return project_columns(weight, inputs), (weight, inputs)


def _project_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight, inputs = residuals
    gradient = gradient.astype(inputs.dtype)
    d_inputs = _product("fg,gtb->ftb", weight, gradient).astype(inputs.dtype)
    return _weight_gradient(inputs, gradient, weight).astype(weight.dtype), d_inputs


project_columns.defvjp(_project_forward, _project_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan_columns_layer(
    compute_dtype: Any, projection: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer.

    Args:
      compute_dtype: of the products' inputs and of what is saved for the gradient.
      projection: [4H, T, B], the input's share of the pre-activations.
      weight_hh: [H, 4H] float32.
      h: [H, B] float32, the output before the window.
      c: [H, B] float32, the cell state before the window.

    Returns:
      The outputs [H, T, B] in the compute dtype, and h and c after the window, float32.
    """
    return _forward(compute_dtype, projection, weight_hh, h, c)[0]


def _forward(
    compute_dtype: Any, projection: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    window_length = projection.shape[1]
    weight = _transposed(weight_hh.astype(compute_dtype))

    def step(state: Any, t: jax.Array) -> Any:
        h, c, outputs = state
        z = jax.lax.dynamic_index_in_dim(projection, t, axis=1, keepdims=False)
        z = z.astype(jnp.float32) + _product("gf,fb->gb", weight, h.astype(compute_dtype))
        h, c, factors = gates.forward(z, c, axis=0)
        outputs = jax.lax.dynamic_update_index_in_dim(outputs, h.astype(compute_dtype), t, axis=1)
        of_z = jnp.stack([factors.i, factors.f, factors.g, factors.o])
        saved = tuple(factor.astype(compute_dtype) for factor in (factors.c, factors.h, of_z))
        return (h, c, outputs), saved

    empty = _empty(h, h.shape[0], window_length, compute_dtype)
    (h_last, c_last, outputs), saved = jax.lax.scan(step, (h, c, empty), jnp.arange(window_length))
    return (outputs, h_last, c_last), (weight_hh, h, outputs, saved)


def _backward(
    compute_dtype: Any, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, saved = residuals
    d_outputs, dh_last, dc_last = gradients
    hidden_size, window_length, batch = outputs.shape
    weight = weight_hh.astype(compute_dtype)
    # The output gate acts on h', the three others on c'. XLA makes one loop over vectors of this
    # selection; of a concatenation of the gates' gradients it would make four over scalars.
    is_output = jnp.arange(4)[:, None, None] == 3

    def step(state: Any, inputs: Any) -> Any:
        dh, dc, dz_all = state
        t, (of_c, of_h, of_z) = inputs
        d_output = jax.lax.dynamic_index_in_dim(d_outputs, t, axis=1, keepdims=False)
        dh = dh + d_output.astype(jnp.float32)
        dc = dc + dh * of_h
        dz = (jnp.where(is_output, dh, dc) * of_z).reshape(4 * hidden_size, batch)
        dz = dz.astype(compute_dtype)
        dz_all = jax.lax.dynamic_update_index_in_dim(dz_all, dz, t, axis=1)
        return (_product("fg,gb->fb", weight, dz), dc * of_c, dz_all), None

    empty = _empty(dh_last, 4 * hidden_size, window_length, compute_dtype)
    (dh, dc, dz), _ = jax.lax.scan(
        step, (dh_last, dc_last, empty), (jnp.arange(window_length), saved), reverse=True
    )
    before = jnp.concatenate([h_first.astype(compute_dtype)[:, None], outputs[:, :-1]], axis=1)
    return dz, _weight_gradient(before, dz, weight_hh), dh, dc


scan_columns_layer.defvjp(_forward, _backward)


def _weight_gradient(inputs: jax.Array, gradient: jax.Array, weight: jax.Array) -> jax.Array:
    """The gradient of a weight [F, G] that met `inputs` [F, T, B]: one product, float32."""
    spec = specify(dimension(weight, 0), dimension(weight, 1))
    return _product("ftb,gtb->fg", inputs, gradient, spec)


def _transposed(weight: jax.Array) -> jax.Array:
    """[G, F] of a weight [F, G], laid out anew.

    The barrier keeps XLA from folding the transposition into the product, where it is slow.
    """
    return jax.lax.optimization_barrier(weight.T)


def _product(
    subscripts: str, left: jax.Array, right: jax.Array, spec: jax.P | None = None
) -> jax.Array:
    return jnp.einsum(
        subscripts, left, right, preferred_element_type=jnp.float32, out_sharding=spec
    )


def _empty(state: jax.Array, features: int, window_length: int, dtype: Any) -> jax.Array:
    """Room for `features` values of each stream of a state [H, B] at every time step."""
    spec = specify(dimension(state, 0), None, dimension(state, 1))
    return jnp.zeros((features, window_length, state.shape[1]), dtype, out_sharding=spec)
