"""The LSTM stack with streams as columns, [features, B] a time step: for CPUs.

There the product [4H, H]·[H, B] reaches the rate of the largest products even for a few streams,
where [B, H]·[H, 4H] stays far below it, provided that the weight lies in memory the way it is read.
What else is done around the products:

- Between the layers everything lies by time and stream, [T, B, features]: what a time step reads of
  it is one contiguous piece. Only the loops turn to columns, and stack what they make in the order
  in which they make it, so that a store is a contiguous one too.
- The first layer reads its input by row from the table, and the gradient is added up row by row.
  The input's share in the layers above is one product ahead of the loop.
- The gradients of weights are products of two matrices, [features, T·B]·[T·B, 4H]. XLA lays the
  operands of an einsum over T and B out once more, and multiplies bfloat16 at a quarter of the
  speed where both are by time.
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
from charlstm.model.recurrence.scan import Scan
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
        if len(inputs) == 1:
            # The scan is faster where there is no loop. And XLA (jaxlib 0.10) folds transpositions
            # into products there, and then fails: it has no such product of bfloat16.
            return Scan()(network, layers, inputs, carry, masks)
        inputs = inputs.astype(jnp.int32) if inputs.ndim == 2 else inputs
        run: Callable[..., Any] = partial(super().__call__, network)
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

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """Runs a window through one layer: symbols [T, B] or floats [T, B, F] to [T, B, H]."""
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
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    table = (weight_ih + bias).astype(compute.dtype)

    def projection(t: jax.Array) -> jax.Array:
        looked_up = table.at[_at(symbols, t)].get(mode="promise_in_bounds")
        return looked_up.T.astype(jnp.float32)

    result, saved = _forward_loop(compute, len(symbols), projection, weight_hh, h, c)
    return result, (symbols, weight_ih, weight_hh, h, *saved)


def _first_backward(
    compute: Compute, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array | None, ...]:
    symbols, weight_ih, weight_hh, h, columns, factors = residuals
    dz, dh, dc = _backward_loop(compute, factors, gradients, weight_hh)
    d_table = add_rows(symbols, dz, weight_ih.shape[0])
    d_weight_hh = _weight_gradient(_before(h, columns), _flat(dz))
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
      inputs: [T, B, F] in the compute dtype.
      weight_ih: [F, 4H] float32.
      weight_hh: [H, 4H] float32.
      bias: [4H] float32.
      h, c: [H, B] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    share = _product("kf,fg->kg", _flat(inputs), weight_ih.astype(compute.dtype))
    share = share.reshape(*inputs.shape[:2], -1)

    def projection(t: jax.Array) -> jax.Array:
        return _at(share, t).T + bias[:, None]

    result, saved = _forward_loop(compute, len(inputs), projection, weight_hh, h, c)
    return result, (inputs, weight_ih, weight_hh, h, *saved)


def _upper_backward(
    compute: Compute, residuals: Any, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    inputs, weight_ih, weight_hh, h, columns, factors = residuals
    dz, dh, dc = _backward_loop(compute, factors, gradients, weight_hh)
    dz = _flat(dz)
    d_inputs = _product("kg,fg->kf", dz, weight_ih.astype(compute.dtype)).astype(compute.dtype)
    return (
        d_inputs.reshape(inputs.shape),
        _weight_gradient(_by_feature(_turned(inputs)), dz),
        _weight_gradient(_before(h, columns), dz),
        jnp.sum(dz, axis=0, dtype=jnp.float32),
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
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, gates.Factors]]:
    """Returns the outputs [T, B, H] with the last h and c; and what is saved for the gradient.

    The latter are the outputs as columns, and the factors of the derivative, each [T, H, B].
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
    (h_last, c_last), (columns, factors) = time_loop.scan(compute.target, step, (h, c), times)
    return (_turned(columns), h_last, c_last), (columns, factors)


def _backward_loop(
    compute: Compute,
    factors: gates.Factors,
    gradients: tuple[jax.Array, jax.Array, jax.Array],
    weight_hh: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients by the pre-activations, [T, B, 4H], and by h and c before the window."""
    d_outputs, dh_last, dc_last = gradients
    weight = weight_hh.astype(compute.dtype)

    def step(state: tuple[jax.Array, jax.Array], saved: tuple[jax.Array, gates.Factors]) -> Any:
        dh, dc = state
        t, factors = saved
        dh = dh + _at(d_outputs, t).T.astype(jnp.float32)
        dz_gates, dc = gates.backward(dh, dc, factors)
        dz = jnp.concatenate(dz_gates).astype(compute.dtype)
        return (_product("fg,gb->fb", weight, dz), dc), dz.T

    times = jnp.arange(len(d_outputs))
    (dh, dc), dz = time_loop.scan(
        compute.target, step, (dh_last, dc_last), (times, factors), reverse=True
    )
    return dz, dh, dc


def _at(array: jax.Array, t: jax.Array) -> jax.Array:
    """The slice of a time step."""
    return jax.lax.dynamic_index_in_dim(array, t, keepdims=False)


def _flat(by_time: jax.Array) -> jax.Array:
    """[T·B, F] of [T, B, F]."""
    return by_time.reshape(-1, by_time.shape[2])


def _turned(by_time: jax.Array) -> jax.Array:
    """[T, F, B] of [T, B, F], or the reverse; laid out anew once for all that read it."""
    return jax.lax.optimization_barrier(by_time.transpose(0, 2, 1))


def _by_feature(columns: jax.Array) -> jax.Array:
    """[F, T, B] of [T, F, B], laid out anew once for all that read it.

    The barrier keeps XLA from folding the transposition into the product, where it is slow. The
    product reads it reshaped, in a layout of its own: XLA computes in float32 what it is asked to
    multiply in bfloat16 where it finds the layout of a transposition.
    """
    return jax.lax.optimization_barrier(columns.transpose(1, 0, 2))


def _before(h: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns the last output that each time step of a window met, [H, T, B]."""
    last = _by_feature(columns)[:, :-1]
    return jnp.concatenate([h.astype(columns.dtype)[:, None], last], axis=1)


def _weight_gradient(by_feature: jax.Array, dz: jax.Array) -> jax.Array:
    """[F, 4H] float32, of what a weight multiplied [F, T, B], and the gradients [T·B, 4H]."""
    return _product("fk,kg->fg", by_feature.reshape(len(by_feature), -1), dz)


def _transposed(weight: jax.Array) -> jax.Array:
    """[G, F] of a weight [F, G], laid out anew.

    See `_by_feature`.
    """
    gates_apart = weight.T.reshape(4, -1, len(weight))
    return jax.lax.optimization_barrier(gates_apart).reshape(-1, len(weight))


def _product(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, left, right, preferred_element_type=jnp.float32)
