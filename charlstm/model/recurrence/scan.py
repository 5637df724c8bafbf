"""The LSTM stack layer by layer, each layer one scan over time with a hand-written gradient.

What makes it fast:
- The input projection of a whole window is one product before the loop.
- The four gates are one product [B, H]·[H, 4H] a time step; weights are cast before the loop.
- The forward loop saves the factors of its own derivative, so that the backward loop is a few
  multiplications and one product a time step.
- The gradient of `weight_hh` is one product over the whole window after the loop, where automatic
  differentiation would add up an [H, 4H] matrix at every time step.

With `keep="state"` a window keeps h and c alone for its gradient, two numbers of every cell and
time step instead of seven: for when memory limits the batch. The backward pass then makes the
pre-activations again, those of many time steps at once, before it walks back through these steps.
That costs the two products of the forward pass once more: a third more arithmetic, none of it
serial.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from charlstm.model import time_loop
from charlstm.model.cell import Cell, Layer
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.base import LayerByLayer, Structure
from charlstm.model.stack import State
from charlstm.runtime.shardings import dimension, specify

# Time steps whose pre-activations are made again at once: enough for large products, few to keep.
LARGEST_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Scan(LayerByLayer):
    """Runs each layer as a scan over time.

    Attributes:
      keep: what a window keeps for its gradient: gates, which is fastest, or the state h and c
        alone.
    """

    name: ClassVar[str] = "scan"
    takes_any_cell: ClassVar[bool] = True
    keep: Literal["gates", "state"] = "gates"

    def __str__(self) -> str:
        return "scan" if self.keep == "gates" else "scan, states kept"

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """See `LayerByLayer`."""
        cell, compute = network.cell, network.compute
        if self.keep == "state":
            outputs, h, c = recomputing_layer(cell, compute, inputs, dict(layer), *state)
        else:
            share = cell.project(compute, inputs, layer)
            own = per_stream(cell.step_parameters(layer), state[0])
            outputs, h, c = scan_layer(cell, compute, share, layer["weight_hh"], own, *state)
        return outputs, (h, c)


def per_stream(own: Any, h: jax.Array) -> Any:
    """Copies a cell's vectors for each stream: [B, ·] of [·], with `h` [B, H].

    Their gradient is then added up over the streams once, and not in every time step, by all
    devices.
    """
    return jax.tree.map(lambda vector: vector + jnp.zeros_like(h[:, :1]), own)


def _forward(
    cell: Cell,
    compute: Compute,
    share: jax.Array,
    weight_hh: jax.Array,
    own: Any,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    """Runs a window through one layer.

    Args:
      cell: what a time step does.
      compute: the dtype of the products' inputs and of the saved activations; the target.
      share: [T, B, 4H] in the compute dtype, the input's share of the pre-activations.
      weight_hh: [H, 4H] float32.
      own: the vectors of a time step, of each stream.
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    dtype = compute.dtype
    weight = weight_hh.astype(dtype)

    def step(state: State, share: jax.Array) -> Any:
        h, c = state
        recurrent = _times(h.astype(dtype), weight)
        h, c, saved = cell.forward(own, share.astype(jnp.float32), recurrent, c, -1, dtype)
        return (h, c), (h.astype(dtype), saved)

    (h_last, c_last), (outputs, saved) = time_loop.scan(compute.target, step, (h, c), share)
    kept = share if cell.keeps_share else ()
    return (outputs, h_last, c_last), (weight_hh, own, h, outputs, kept, saved)


def _backward(
    cell: Cell, compute: Compute, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[Any, ...]:
    weight_hh, own, h_first, outputs, kept, saved = residuals
    found = _backward_loop(cell, compute, weight_hh, own, (kept, saved), gradients)
    (dh, dc, d_own), (d_share, d_recurrent) = found
    d_weight = weight_gradient(before(h_first, outputs), d_recurrent, weight_hh)
    return d_share, d_weight, d_own, dh, dc


scan_layer = with_gradient(_forward, _backward, num_static=2)


def _backward_loop(
    cell: Cell,
    compute: Compute,
    weight_hh: jax.Array,
    own: Any,
    saved: tuple[Any, Any],
    gradients: tuple[jax.Array, ...],
) -> tuple[tuple[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]:
    """The backward pass through time of one layer.

    Args:
      cell, compute, weight_hh, own: of the forward pass.
      saved: the shares if the cell keeps them, else (), and what each time step saved; [T, …].
      gradients: of the outputs [T, B, H], and of h and c after the window [B, H].

    Returns:
      The gradients of h, c and own before the window, and of the two shares, [T, B, 4H] each.
    """
    d_outputs, dh_last, dc_last = gradients
    weight_transposed = weight_hh.T.astype(compute.dtype)

    def step(state: tuple[jax.Array, jax.Array, Any], inputs: Any) -> Any:
        dh, dc, d_own = state
        d_output, (share, saved) = inputs
        d_share, d_recurrent, dc, d_own_here = cell.backward(
            own, share, saved, dh + d_output.astype(jnp.float32), dc, -1, compute.dtype
        )
        dh = _times(d_recurrent, weight_transposed)
        return (dh, dc, jax.tree.map(jnp.add, d_own, d_own_here)), (d_share, d_recurrent)

    start = dh_last, dc_last, jax.tree.map(jnp.zeros_like, own)
    return time_loop.scan(compute.target, step, start, (d_outputs, saved), reverse=True)


def _recompute_forward(
    cell: Cell,
    compute: Compute,
    inputs: jax.Array,
    layer: dict[str, jax.Array],
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    """Runs a window through one layer, keeping h and c alone for the gradient.

    Args:
      cell, compute: see `scan_layer`.
      inputs: symbols [T, B], which look up rows of `weight_ih`, or [T, B, F] in the compute dtype.
      layer: its parameters, float32.
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    dtype = compute.dtype
    weight, own = layer["weight_hh"].astype(dtype), cell.step_parameters(layer)

    def step(state: State, share: jax.Array) -> Any:
        h, c = state
        recurrent = _times(h.astype(dtype), weight)
        h, c, _ = cell.forward(own, share.astype(jnp.float32), recurrent, c, -1, dtype)
        return (h, c), (h.astype(dtype), c)

    share = cell.project(compute, inputs, layer)
    (h_last, c_last), (outputs, cells) = time_loop.scan(compute.target, step, (h, c), share)
    # Cell states stay float32: the gradient is that of the numbers that were computed.
    return (outputs, h_last, c_last), (inputs, layer, h, c, outputs, cells)


def _recompute_backward(
    cell: Cell,
    compute: Compute,
    residuals: tuple[Any, ...],
    gradients: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[Any, ...]:
    inputs, layer, h, c, outputs, cells = residuals
    d_outputs, dh_last, dc_last = gradients
    weight_hh, dtype = layer["weight_hh"], compute.dtype
    weight, own = weight_hh.astype(dtype), per_stream(cell.step_parameters(layer), h)
    length = len(outputs)
    chunk = max(size for size in range(1, LARGEST_CHUNK + 1) if length % size == 0)

    def run_chunk(state: tuple[jax.Array, jax.Array, Any], kept: tuple[jax.Array, ...]) -> Any:
        dh, dc, d_own = state
        inputs, h_before, c_before, d_outputs = kept
        share = cell.project(compute, inputs, layer)
        recurrent = _times(h_before, weight)
        at = share.astype(jnp.float32), recurrent, c_before
        saved = share if cell.keeps_share else (), cell.forward(own, *at, -1, dtype)[2]
        (dh, dc, d_own_here), d_shares = _backward_loop(
            cell, compute, weight_hh, own, saved, (d_outputs, dh, dc)
        )
        return (dh, dc, jax.tree.map(jnp.add, d_own, d_own_here)), d_shares

    h_before = before(h, outputs)
    kept = (inputs, h_before, jnp.concatenate([c[None], cells[:-1]]), d_outputs)
    chunks = tuple(array.reshape(-1, chunk, *array.shape[1:]) for array in kept)
    start = dh_last, dc_last, jax.tree.map(jnp.zeros_like, own)
    (dh, dc, d_own), d_shares = time_loop.scan(
        compute.target, run_chunk, start, chunks, reverse=True
    )
    d_share, d_recurrent = (d.reshape(length, *d.shape[2:]) for d in d_shares)

    def project(inputs: jax.Array, layer: dict[str, jax.Array]) -> Any:
        return cell.project(compute, inputs, layer), per_stream(cell.step_parameters(layer), h)

    d_inputs: Any = None
    if inputs.ndim == 2:  # symbols have no gradient
        (d_layer,) = jax.vjp(partial(project, inputs), layer)[1]((d_share, d_own))
    else:
        d_inputs, d_layer = jax.vjp(project, inputs, layer)[1]((d_share, d_own))
    d_weight = weight_gradient(h_before, d_recurrent, weight_hh)
    return d_inputs, d_layer | {"weight_hh": d_weight}, dh, dc


recomputing_layer = with_gradient(_recompute_forward, _recompute_backward, num_static=2)


def before(h: jax.Array, outputs: jax.Array) -> jax.Array:
    """Returns the last output that each time step of a window met, [T, B, H]."""
    return jnp.concatenate([h.astype(outputs.dtype)[None], outputs[:-1]])


def weight_gradient(inputs: jax.Array, dz: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the gradient of a weight [F, 4H] that met `inputs` [T, B, F]; one product."""
    return jnp.einsum(
        "tbh,tbg->hg",
        inputs,
        dz,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(weight, 0), dimension(weight, 1)),
    )


def _times(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)
