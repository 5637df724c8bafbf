"""The LSTM stack as a wavefront: all layers at once, each a chunk behind the one below.

The window is cut into n chunks of c time steps, and in round k layer l runs chunk k - l:

    round    0    1    2    …   n-1    n    n+1
    layer 0  [0]  [1]  [2]  …  [n-1]
    layer 1       [0]  [1]  …         [n-1]
    layer 2            [0]  …               [n-1]

A time step of a round is one batched product [L, B, H]·[L, H, 4H] where the layer-by-layer scan has
L products one after the other, so (n + L - 1)·c steps do the work of L·T. The input projections of
a round are one batched product too, before its steps; so are the weights' gradients, after the
whole backward pass. It pays where a step is bound by latency and not by arithmetic: the idle
places of the table are computed as well, (L - 1) / (n + L - 1) of all.

An idle place, and the padding of a window that the chunks do not divide, holds its state: what a
layer starts from waits in the rounds before it, and what it ends with stays to the last round.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.model import time_loop
from charlstm.model.cell import Layer, Lstm
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.base import Recurrence, Structure
from charlstm.model.recurrence.scan import Scan
from charlstm.model.stack import Carry
from charlstm.runtime.shardings import dimension, specify


@dataclasses.dataclass(frozen=True)
class Wavefront(Recurrence):
    """Runs all layers at once, each a chunk behind the one below.

    A single layer, or a window of a single chunk, has nothing to overlap and is left to the scan.

    Attributes:
      chunk_size: the largest number of time steps in a chunk; chunks are made equally long.
    """

    name: ClassVar[str] = "wavefront"
    takes_connections: ClassVar[bool] = False
    chunk_size: int = 32

    def __str__(self) -> str:
        return f"wavefront, chunks of {self.chunk_size}"

    def __call__(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """See `Recurrence`."""
        length = inputs.shape[0]
        if len(layers) == 1 or length <= self.chunk_size:
            return Scan()(network, layers, inputs, carry, masks)
        projection = network.cell.project(network.compute, inputs, layers[0])
        upper = layers[1:]
        weights = _Weights(
            jnp.stack([layer["weight_hh"] for layer in layers]),
            jnp.stack([layer["weight_ih"] for layer in upper]),
            jnp.stack([layer["bias"] for layer in upper]),
        )
        plan = _Plan(length, len(layers), -(-length // self.chunk_size), network.compute)
        # The masks are drawn, not learned: no gradient is computed for them.
        masks = None if masks is None else jax.lax.stop_gradient(masks)
        outputs, h, c = _run(plan, weights, projection, masks, carry["h"], carry["c"])
        return outputs, {"h": h, "c": c}


_CELL = Lstm()


class _Weights(NamedTuple):
    """The weights of the stack, float32."""

    weight_hh: jax.Array  # [L, H, 4H]
    weight_ih: jax.Array  # [L-1, H, 4H], of the layers above the first
    bias: jax.Array  # [L-1, 4H]


class _Plan(NamedTuple):
    """The cut of a window into chunks, and the way between its two arrangements.

    By time an array is [T, …], by round [K, c, …].
    """

    length: int  # T
    num_layers: int  # L
    num_chunks: int  # n
    compute: Compute

    @property
    def chunk(self) -> int:
        """c, the time steps of a chunk."""
        return -(-self.length // self.num_chunks)

    @property
    def num_rounds(self) -> int:
        """K."""
        return self.num_chunks + self.num_layers - 1

    def busy(self) -> np.ndarray:
        """Returns where a layer runs a time step of the window, bool [K, c, L, 1, 1]."""
        steps = np.arange(self.num_rounds * self.chunk).reshape(-1, self.chunk, 1)
        times = steps - np.arange(self.num_layers) * self.chunk
        return ((times >= 0) & (times < self.length))[..., None, None]

    def by_round(self, array: jax.Array, layer: int) -> jax.Array:
        """Returns a layer's part of `array` [T, …] in each round, [K, c, …]; zeros if idle."""
        before = layer * self.chunk
        after = self.num_rounds * self.chunk - before - self.length
        padded = jnp.pad(array, [(before, after)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(self.num_rounds, self.chunk, *array.shape[1:])

    def by_time(self, rounds: jax.Array, layer: int) -> jax.Array:
        """Is the inverse of `by_round`: returns the time steps [T, …] of a layer."""
        active = rounds[layer : layer + self.num_chunks]
        return active.reshape(-1, *rounds.shape[2:])[: self.length]

    def masks_by_round(self, masks: jax.Array | None) -> jax.Array | None:
        """Returns the factors on the inputs of layers 1…, [K, c or 1, L-1, B, H]."""
        if masks is None:
            return None
        if masks.shape[1] == self.length:
            return jnp.stack([self.by_round(m, i + 1) for i, m in enumerate(masks)], axis=2)
        held = jnp.swapaxes(masks, 0, 1)[None]
        return jnp.broadcast_to(held, (self.num_rounds, *held.shape[1:]))


def _forward(
    plan: _Plan,
    weights: _Weights,
    projection: jax.Array,
    masks: jax.Array | None,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    """The top layer's outputs [T, B, H], and h and c [L, B, H] after the window."""
    dtype = plan.compute.dtype
    weight_hh, weight_ih = weights.weight_hh.astype(dtype), weights.weight_ih.astype(dtype)

    def step(state: tuple[jax.Array, jax.Array], inputs: Any) -> Any:
        h, c = state
        z, busy = inputs
        recurrent = jnp.einsum(
            "lbh,lhg->lbg", h.astype(dtype), weight_hh, preferred_element_type=jnp.float32
        )
        h_after, c_after, saved = _CELL.forward((), z.astype(jnp.float32), recurrent, c, -1, dtype)
        h, c = jnp.where(busy, h_after, h), jnp.where(busy, c_after, c)
        return (h, c), (h.astype(dtype), saved)

    def run_round(loop: Any, inputs: Any) -> Any:
        state, below = loop
        projection, mask, busy = inputs
        passed = below if mask is None else below * mask
        # Transposed after the bias is added, not by the product: XLA's CPU backend (jaxlib 0.10 to
        # 0.12) has no bfloat16 product that does both.
        upper = jnp.einsum("clbh,lhg->lcbg", passed, weight_ih, preferred_element_type=jnp.float32)
        upper = jnp.swapaxes((upper + weights.bias[:, None, None]).astype(dtype), 0, 1)
        z = jnp.concatenate([projection[:, None], upper], axis=1)
        state, (outputs, factors) = time_loop.scan(plan.compute.target, step, state, (z, busy))
        return (state, outputs[:, :-1]), (outputs, factors)

    rounds = (plan.by_round(projection, 0), plan.masks_by_round(masks), plan.busy())
    # What the layers below passed on in the round before, [c, L-1, B, H]: nothing yet.
    below = _zeros_like_batch(h, (plan.chunk, plan.num_layers - 1, *h.shape[1:]), dtype)
    (state, _), (outputs, factors) = time_loop.scan(
        plan.compute.target, run_round, ((h, c), below), rounds
    )
    top = plan.by_time(outputs[:, :, -1], plan.num_layers - 1)
    return (top, *state), (weights, masks, h, outputs, factors)


def _backward(
    plan: _Plan, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[_Weights, jax.Array, None, jax.Array, jax.Array]:
    weights, masks, h_first, outputs, factors = residuals
    d_top, dh_last, dc_last = gradients
    dtype = plan.compute.dtype
    weight_hh, weight_ih = weights.weight_hh.astype(dtype), weights.weight_ih.astype(dtype)
    masks = plan.masks_by_round(masks)

    def step(state: tuple[jax.Array, jax.Array], inputs: Any) -> Any:
        dh, dc = state
        d_output, factors, busy = inputs
        dh_after = dh + d_output.astype(jnp.float32)
        dz, _, dc_before, _ = _CELL.backward((), (), factors, dh_after, dc, -1, dtype)
        dz = jnp.where(busy, dz, 0).astype(dtype)
        dh_before = jnp.einsum("lbg,lhg->lbh", dz, weight_hh, preferred_element_type=jnp.float32)
        state = jnp.where(busy, dh_before, dh), jnp.where(busy, dc_before, dc)
        return state, dz

    def run_round(loop: Any, inputs: Any) -> Any:
        state, dz_above = loop
        d_top, mask_above, *per_step = inputs
        d_lower = jnp.einsum("clbg,lhg->clbh", dz_above, weight_ih, preferred_element_type=dtype)
        d_lower = d_lower if mask_above is None else d_lower * mask_above
        d_outputs = jnp.concatenate([d_lower, d_top[:, None]], axis=1)
        state, dz = time_loop.scan(
            plan.compute.target, step, state, (d_outputs, *per_step), reverse=True
        )
        return (state, dz[:, 1:]), dz

    rounds = (
        plan.by_round(d_top, plan.num_layers - 1),
        # The layers above met this round's outputs, and the masks on them, in the next round.
        None if masks is None else jnp.roll(masks, -1, axis=0),
        factors,
        plan.busy(),
    )
    above = _zeros_like_batch(
        h_first, (plan.chunk, plan.num_layers - 1, h_first.shape[1], 4 * h_first.shape[2]), dtype
    )
    (state, _), dz = time_loop.scan(
        plan.compute.target, run_round, ((dh_last, dc_last), above), rounds, reverse=True
    )
    steps = outputs.reshape(-1, *outputs.shape[2:])
    h_before = jnp.concatenate([h_first.astype(dtype)[None], steps[:-1]]).reshape(outputs.shape)
    passed = jnp.concatenate([jnp.zeros_like(outputs[:1, :, 1:]), outputs[:-1, :, :-1]])
    passed = passed if masks is None else passed * masks
    d_weights = _Weights(
        _weight_gradient(h_before, dz),
        _weight_gradient(passed, dz[:, :, 1:]),
        jnp.sum(dz[:, :, 1:], axis=(0, 1, 3), dtype=jnp.float32),
    )
    return d_weights, plan.by_time(dz[:, :, 0], 0), None, *state


def _weight_gradient(inputs: jax.Array, dz: jax.Array) -> jax.Array:
    """[l, H, 4H] float32 of inputs [K, c, l, B, H] and dz [K, c, l, B, 4H], one batched product."""
    return jnp.einsum(
        "kclbh,kclbg->lhg",
        inputs,
        dz,
        preferred_element_type=jnp.float32,
        out_sharding=specify(None, None, None),
    )


def _zeros_like_batch(state: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros [c, L-1, B, ·], the batch split as in the state [L, B, H]."""
    return jnp.zeros(shape, dtype, out_sharding=specify(None, None, dimension(state, 1), None))


_run = with_gradient(_forward, _backward, num_static=1)
