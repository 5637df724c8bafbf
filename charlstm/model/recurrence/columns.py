"""The LSTM stack with streams as columns, [features, B] a time step: for CPUs.

There the product [4H, H]·[H, B] reaches the rate of the largest products even for a few streams,
where [B, H]·[H, 4H] stays far below it, provided that the weight lies in memory the way it is read.
What else is done around the products:

- The first layer reads its input by row from the table, [B, 4H] a time step, and the gradient is
  added up row by row. The input's share in the layers above is one product ahead of the loop.
- The loops stack what they make in the order in which they make it, [T, features, B], so that a
  store is a contiguous one. What products over a whole window read is laid out anew once, as
  [features, T·B]. These are products of two matrices, because XLA lays the operands of an
  einsum over T and B out once more.
- Every device of the mesh works alone from the first time step to the last; one core for a device
  keeps elementwise work and products on the same core.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from charlstm.model import gates, time_loop
from charlstm.model.cell import Layer
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.look_up import add_rows
from charlstm.model.recurrence.base import LayerByLayer, Structure
from charlstm.model.stack import Carry, State
from charlstm.runtime.shardings import dimension


@dataclasses.dataclass(frozen=True)
class Columns(LayerByLayer):
    """Runs each layer as a scan over time with streams as columns, and all on its own device."""

    name: ClassVar[str] = "scan_columns"

    def __call__(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """See `Recurrence`."""
        run: Callable[..., Any] = partial(self._run_on_device, network)
        axis = dimension(carry["h"], 1)
        if axis is not None:
            streams = jax.P(None, axis)
            if jax.sharding.get_abstract_mesh().shape[axis] > 1:
                run = jax.shard_map(
                    run,
                    in_specs=(jax.P(), streams, streams, jax.P(None, None, axis)),
                    out_specs=(streams, streams),
                    check_vma=False,
                )
            else:  # a device alone has nobody to add its gradients to
                run = jax.sharding.auto_axes(run, out_sharding=(streams, streams))
        return run(layers, inputs, carry, masks)

    def _run_on_device(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """Runs the whole stack for the streams of one device."""
        inputs = inputs.astype(jnp.int32) if inputs.ndim == 2 else inputs.transpose(2, 0, 1)
        turned = None if masks is None else [mask.transpose(2, 0, 1) for mask in masks]
        outputs, carry = super().__call__(network, layers, inputs, carry, turned)
        return outputs.transpose(1, 2, 0), carry

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """Runs a window through one layer: symbols [T, B] or floats [F, T, B] to [H, T, B]."""
        run = first_layer if inputs.ndim == 2 else upper_layer
        weights = (layer[name] for name in ("weight_ih", "weight_hh", "bias"))
        outputs, h, c = run(network.compute, inputs, *weights, state[0].T, state[1].T)
        return outputs, (h.T, c.T)


def _first_forward(
    compute: Compute,
    symbols: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[Any, Any]:
    """Runs a window through a first layer that reads symbols.

    Args:
      compute: the dtype of the product's inputs and of what is saved; the target.
      symbols: int32 [T, B].
      weight_ih: [V, 4H] float32, of which a symbol looks up a row.
      weight_hh: [H, 4H] float32.
      bias: [4H] float32.
      h, c: [H, B] float32, the state before the window.

    Returns:
      The outputs [H, T, B] in the compute dtype, and the state after the window, float32.
    """
    table = (weight_ih + bias).astype(compute.dtype)

    def projection(t: jax.Array) -> jax.Array:
        looked_up = table.at[_at(symbols, t, axis=0)].get(mode="promise_in_bounds")
        return looked_up.T.astype(jnp.float32)

    result, factors = _forward_loop(compute, len(symbols), projection, weight_hh, h, c)
    return result, (symbols, weight_ih, weight_hh, h, result[0], factors)


def _first_backward(
    compute: Compute, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
    symbols, weight_ih, weight_hh, h, outputs, factors = residuals
    dz, dh, dc = _backward_loop(compute, factors, gradients, weight_hh, by_row=True)
    d_table = add_rows(symbols, dz, weight_ih.shape[0])
    d_weight_hh = _product("fk,kg->fg", _flat(_before(h, outputs)), dz.reshape(-1, dz.shape[2]))
    return None, d_table, d_weight_hh, jnp.sum(d_table, axis=0), dh, dc


first_layer = with_gradient(_first_forward, _first_backward, num_static=1)


def _upper_forward(
    compute: Compute,
    inputs: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[Any, Any]:
    """Runs a window through a layer that reads floats: the first of them, or one above another.

    Args:
      compute.dtype: of the products' inputs and of what is saved for the gradient.
      inputs: [F, T, B] in the compute dtype.
      weight_ih: [F, 4H] float32.
      weight_hh: [H, 4H] float32.
      bias: [4H] float32.
      h, c: [H, B] float32, the state before the window.

    Returns:
      The outputs [H, T, B] in the compute dtype, and the state after the window, float32.
    """
    product = _product("gf,fk->gk", _transposed(weight_ih.astype(compute.dtype)), _flat(inputs))
    by_time = product.reshape(-1, *inputs.shape[1:])

    def projection(t: jax.Array) -> jax.Array:
        return _at(by_time, t, axis=1) + bias[:, None]

    result, factors = _forward_loop(compute, inputs.shape[1], projection, weight_hh, h, c)
    return result, (inputs, weight_ih, weight_hh, h, result[0], factors)


def _upper_backward(
    compute: Compute, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    inputs, weight_ih, weight_hh, h, outputs, factors = residuals
    dz, dh, dc = _backward_loop(compute, factors, gradients, weight_hh)
    d_bias = jnp.sum(dz, axis=(0, 2), dtype=jnp.float32)
    dz = _flat(_by_feature(dz))
    d_inputs = _product("fg,gk->fk", weight_ih.astype(compute.dtype), dz).astype(compute.dtype)
    return (
        d_inputs.reshape(inputs.shape),
        _product("fk,gk->fg", _flat(inputs), dz),
        _product("fk,gk->fg", _flat(_before(h, outputs)), dz),
        d_bias,
        dh,
        dc,
    )


upper_layer = with_gradient(_upper_forward, _upper_backward, num_static=1)


def _forward_loop(
    compute: Compute,
    window_length: int,
    projection: Callable[[jax.Array], jax.Array],
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], gates.Factors]:
    """Outputs [H, T, B], the last h and c, and the factors of the derivative, each [T, H, B].

    `projection(t)` is the input's share of the pre-activations, [4H, B] float32.
    """
    weight = _transposed(weight_hh.astype(compute.dtype))

    def step(state: tuple[jax.Array, jax.Array], t: jax.Array) -> Any:
        h, c = state
        z = projection(t) + _product("gf,fb->gb", weight, h.astype(compute.dtype))
        h, c, factors = gates.forward(z, c, axis=0)
        saved = jax.tree.map(lambda factor: factor.astype(compute.dtype), factors)
        return (h, c), (h.astype(compute.dtype), saved)

    times = jnp.arange(window_length)
    (h_last, c_last), (outputs, factors) = time_loop.scan(compute.target, step, (h, c), times)
    return (_by_feature(outputs), h_last, c_last), factors


def _backward_loop(
    compute: Compute,
    factors: gates.Factors,
    gradients: tuple[jax.Array, jax.Array, jax.Array],
    weight_hh: jax.Array,
    by_row: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients by the pre-activations, and by h and c before the window.

    The former are [T, 4H, B]; `by_row` [T, B, 4H].
    """
    d_outputs, dh_last, dc_last = gradients
    weight = weight_hh.astype(compute.dtype)

    def step(state: tuple[jax.Array, jax.Array], saved: tuple[jax.Array, gates.Factors]) -> Any:
        dh, dc = state
        t, factors = saved
        dh = dh + _at(d_outputs, t, axis=1).astype(jnp.float32)
        dz_gates, dc = gates.backward(dh, dc, factors)
        dz = jnp.concatenate(dz_gates).astype(compute.dtype)
        return (_product("fg,gb->fb", weight, dz), dc), dz.T if by_row else dz

    times = jnp.arange(d_outputs.shape[1])
    (dh, dc), dz = time_loop.scan(
        compute.target, step, (dh_last, dc_last), (times, factors), reverse=True
    )
    return dz, dh, dc


def _at(array: jax.Array, t: jax.Array, axis: int) -> jax.Array:
    """The slice of a time step."""
    return jax.lax.dynamic_index_in_dim(array, t, axis, keepdims=False)


def _by_feature(stacked: jax.Array) -> jax.Array:
    """[F, T, B] of [T, F, B], laid out anew once for all that read it."""
    return jax.lax.optimization_barrier(stacked.transpose(1, 0, 2))


def _flat(by_feature: jax.Array) -> jax.Array:
    """[F, T·B] of [F, T, B]."""
    return by_feature.reshape(len(by_feature), -1)


def _before(h: jax.Array, outputs: jax.Array) -> jax.Array:
    """Returns the last output that each time step of a window met, [H, T, B]."""
    return jnp.concatenate([h.astype(outputs.dtype)[:, None], outputs[:, :-1]], axis=1)


def _transposed(weight: jax.Array) -> jax.Array:
    """[G, F] of a weight [F, G], laid out anew.

    The barrier keeps XLA from folding the transposition into the product, where it is slow. A
    reshaped array has a layout of its own: XLA computes in float32 what it is asked to multiply in
    bfloat16 where it finds the layout of a transposition.
    """
    gates_apart = weight.T.reshape(4, -1, len(weight))
    return jax.lax.optimization_barrier(gates_apart).reshape(-1, len(weight))


def _product(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, left, right, preferred_element_type=jnp.float32)
