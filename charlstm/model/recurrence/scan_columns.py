"""The LSTM stack with streams as columns, [features, B] a time step: for CPUs.

There the product [4H, H]·[H, B] reaches the rate of the largest products even for a few streams,
where [B, H]·[H, 4H] stays far below it, provided that the weight lies in memory the way it is read.
What else is done around the products:

- The first layer reads its input by row from the table, [B, 4H] a time step, and the gradient is
  added up row by row. The input's share in the layers above is one product ahead of the loop.
- The loops stack what they make in the order in which they make it, [T, features, B], so that a
  store is a contiguous one. Products over a whole window want [features, T, B]; what several of
  them read is laid out anew once.
- Every device of the mesh works alone from the first time step to the last; one core for a device
  keeps elementwise work and products on the same core.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.model.recurrence import gates
from charlstm.model.recurrence.look_up import add_rows
from charlstm.sharding import dimension, specify


def scan_columns_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result."""
    h_last, c_last = [], []
    looks_up = inputs.ndim == 2
    inputs = inputs.astype(jnp.int32) if looks_up else inputs.transpose(2, 0, 1)
    for index, layer in enumerate(layers):
        state = carry["h"][index].T, carry["c"][index].T
        if index > 0 and masks is not None:
            inputs = inputs * masks[index - 1].astype(compute_dtype).transpose(2, 0, 1)
        run = first_layer if index == 0 and looks_up else upper_layer
        weights = layer["weight_ih"], layer["weight_hh"], layer["bias"]
        inputs, h, c = run(compute_dtype, inputs, *weights, *state)
        h_last.append(h.T)
        c_last.append(c.T)
    return inputs.transpose(1, 2, 0), {"h": jnp.stack(h_last), "c": jnp.stack(c_last)}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def first_layer(
    compute_dtype: Any,
    symbols: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through a first layer that reads symbols.

    Args:
      compute_dtype: of the product's inputs and of what is saved for the gradient.
      symbols: int32 [T, B].
      weight_ih: [V, 4H] float32, of which a symbol looks up a row.
      weight_hh: [H, 4H] float32.
      bias: [4H] float32.
      h, c: [H, B] float32, the state before the window.

    Returns:
      The outputs [H, T, B] in the compute dtype, and the state after the window, float32.
    """
    return _first_forward(compute_dtype, symbols, weight_ih, weight_hh, bias, h, c)[0]


def _first_forward(
    compute_dtype: Any,
    symbols: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[Any, Any]:
    weight = _transposed(weight_hh.astype(compute_dtype))
    table = (weight_ih + bias).astype(compute_dtype)
    rows = specify(dimension(symbols, 1), dimension(table, 1))

    def projection(t: jax.Array) -> jax.Array:
        looked_up = table.at[_at(symbols, t, axis=0)].get(
            out_sharding=rows, mode="promise_in_bounds"
        )
        return looked_up.T.astype(jnp.float32)

    result, factors = _forward_loop(compute_dtype, len(symbols), projection, weight, h, c)
    return result, (symbols, weight_ih, weight_hh, h, result[0], factors)


def _first_backward(
    compute_dtype: Any, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
    symbols, weight_ih, weight_hh, h, outputs, factors = residuals
    dz, dh, dc = _backward_loop(compute_dtype, factors, gradients, weight_hh)
    d_table = add_rows(symbols, dz.transpose(0, 2, 1), weight_ih.shape[0])
    d_weight_hh = _weight_gradient(_before(h, outputs), dz, weight_hh)
    return None, d_table, d_weight_hh, jnp.sum(d_table, axis=0), dh, dc


first_layer.defvjp(_first_forward, _first_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def upper_layer(
    compute_dtype: Any,
    inputs: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through a layer that reads floats: the first of them, or one above another.

    Args:
      compute_dtype: of the products' inputs and of what is saved for the gradient.
      inputs: [F, T, B] in the compute dtype.
      weight_ih: [F, 4H] float32.
      weight_hh: [H, 4H] float32.
      bias: [4H] float32.
      h, c: [H, B] float32, the state before the window.

    Returns:
      The outputs [H, T, B] in the compute dtype, and the state after the window, float32.
    """
    return _upper_forward(compute_dtype, inputs, weight_ih, weight_hh, bias, h, c)[0]


def _upper_forward(
    compute_dtype: Any,
    inputs: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[Any, Any]:
    inputs_product = _product("gf,ftb->gtb", _transposed(weight_ih.astype(compute_dtype)), inputs)

    def projection(t: jax.Array) -> jax.Array:
        return _at(inputs_product, t, axis=1) + bias[:, None]

    weight = _transposed(weight_hh.astype(compute_dtype))
    result, factors = _forward_loop(compute_dtype, inputs.shape[1], projection, weight, h, c)
    return result, (inputs, weight_ih, weight_hh, h, result[0], factors)


def _upper_backward(
    compute_dtype: Any, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    inputs, weight_ih, weight_hh, h, outputs, factors = residuals
    dz, dh, dc = _backward_loop(compute_dtype, factors, gradients, weight_hh)
    weight = weight_ih.astype(compute_dtype)
    return (
        _product("fg,gtb->ftb", weight, _by_feature(dz)).astype(compute_dtype),
        _weight_gradient(inputs, dz, weight_ih),
        _weight_gradient(_before(h, outputs), dz, weight_hh),
        jnp.sum(dz, axis=(0, 2), dtype=jnp.float32),
        dh,
        dc,
    )


upper_layer.defvjp(_upper_forward, _upper_backward)


def _forward_loop(
    compute_dtype: Any,
    window_length: int,
    projection: Callable[[jax.Array], jax.Array],
    weight: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], gates.Factors]:
    """Outputs [H, T, B], the last h and c, and the factors of the derivative, each [T, H, B].

    `projection(t)` is the input's share of the pre-activations, [4H, B] float32; `weight` [4H, H].
    """

    def step(state: tuple[jax.Array, jax.Array], t: jax.Array) -> Any:
        h, c = state
        z = projection(t) + _product("gf,fb->gb", weight, h.astype(compute_dtype))
        h, c, factors = gates.forward(z, c, axis=0)
        saved = jax.tree.map(lambda factor: factor.astype(compute_dtype), factors)
        return (h, c), (h.astype(compute_dtype), saved)

    times = jnp.arange(window_length)
    (h_last, c_last), (outputs, factors) = jax.lax.scan(step, (h, c), times)
    return (_by_feature(outputs), h_last, c_last), factors


def _backward_loop(
    compute_dtype: Any,
    factors: gates.Factors,
    gradients: tuple[jax.Array, jax.Array, jax.Array],
    weight_hh: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients by the pre-activations, [T, 4H, B], and by h and c before the window."""
    d_outputs, dh_last, dc_last = gradients
    weight = weight_hh.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], saved: tuple[jax.Array, gates.Factors]) -> Any:
        dh, dc = state
        t, factors = saved
        dh = dh + _at(d_outputs, t, axis=1).astype(jnp.float32)
        dz_gates, dc = gates.backward(dh, dc, factors)
        dz = jnp.concatenate(dz_gates).astype(compute_dtype)
        return (_product("fg,gb->fb", weight, dz), dc), dz

    times = jnp.arange(d_outputs.shape[1])
    (dh, dc), dz = jax.lax.scan(step, (dh_last, dc_last), (times, factors), reverse=True)
    return dz, dh, dc


def _at(array: jax.Array, t: jax.Array, axis: int) -> jax.Array:
    """The slice of a time step."""
    return jax.lax.dynamic_index_in_dim(array, t, axis, keepdims=False)


def _by_feature(stacked: jax.Array) -> jax.Array:
    """[F, T, B] of [T, F, B], laid out anew once for all that read it."""
    return jax.lax.optimization_barrier(stacked.transpose(1, 0, 2))


def _before(h: jax.Array, outputs: jax.Array) -> jax.Array:
    """What each time step of a window met as its last output, [H, T, B]."""
    return jnp.concatenate([h.astype(outputs.dtype)[:, None], outputs[:, :-1]], axis=1)


def _weight_gradient(inputs: jax.Array, dz: jax.Array, weight: jax.Array) -> jax.Array:
    """The gradient of a weight [F, G], float32, of its inputs [F, T, B] and dz [T, G, B]."""
    spec = specify(dimension(weight, 0), dimension(weight, 1))
    return _product("ftb,tgb->fg", inputs, dz, spec)


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
