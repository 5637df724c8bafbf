"""The LSTM stack layer by layer, each layer one TPU kernel that walks through the window.

A scan on a TPU reads `weight_hh` from HBM at every time step. Here a Pallas kernel brings it into
VMEM once and keeps it there, together with h and c, for the whole window: its grid is sequential
over time, and its pipeline fetches and writes only what is new in a time step. The backward kernel
walks the other way and emits dz; the gradient of `weight_hh` is one product after it, as in scan.

Tests interpret the kernels, which takes no TPU.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from charlstm.model import gates
from charlstm.model.cell import Layer
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.base import LayerByLayer, OnChip, Structure
from charlstm.model.recurrence.pallas_grid import ROWS, Blocks, TimeGrid, core_of
from charlstm.model.recurrence.scan import before, weight_gradient
from charlstm.model.stack import State
from charlstm.runtime.targets import Platform

NUM_FACTORS = len(gates.Factors._fields)


@dataclasses.dataclass(frozen=True)
class PallasTpu(LayerByLayer):
    """Runs each layer as one TPU kernel.

    Attributes:
      interpret: run the kernels on any device; slow, for tests.
    """

    name: ClassVar[str] = "pallas_tpu"
    platform: ClassVar[Platform | None] = "tpu"
    interpret: bool = False

    def require(self, compute: Compute, hidden_size: int) -> None:
        """See `Recurrence`."""
        if not self.interpret:
            super().require(compute, hidden_size)
            Blocks.choose(1, ROWS, hidden_size, compute)

    def on_chip(
        self, compute: Compute, window: int, streams: int, hidden_size: int
    ) -> OnChip | None:
        """See `Recurrence`."""
        blocks = Blocks.choose(window, streams, hidden_size, compute)
        needed = blocks.vmem_bytes(hidden_size, compute.dtype)
        return OnChip(*blocks, needed, core_of(compute.target).vmem_limit)

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """See `LayerByLayer`."""
        compute, weight_hh = network.compute, layer["weight_hh"]
        share = network.cell.project(compute, inputs, layer)
        outputs, h, c = pallas_tpu_layer(self.interpret, compute, share, weight_hh, *state)
        return outputs, (h, c)


def _forward(
    interpret: bool,
    compute: Compute,
    projection: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    """Runs a window through one layer; see `scan.scan_layer` for arguments and result."""
    grid = TimeGrid(_forward_kernel, compute, interpret, reverse=False)
    weight = weight_hh.astype(compute.dtype)
    (outputs, factors), (h_last, c_last) = grid(weight, (h, c), [projection], [1, NUM_FACTORS])
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    interpret: bool,
    compute: Compute,
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, factors = residuals
    d_outputs, dh_last, dc_last = gradients
    grid = TimeGrid(_backward_kernel, compute, interpret, reverse=True)
    weight = weight_hh.astype(compute.dtype)
    (dz,), (dh, dc) = grid(weight, (dh_last, dc_last), [d_outputs, factors], [4])
    d_weight = weight_gradient(before(h_first, outputs), dz, weight_hh)
    return dz, d_weight, dh, dc


pallas_tpu_layer = with_gradient(_forward, _backward, num_static=2)


def _forward_kernel(
    weight: Any,
    h_first: Any,
    c_first: Any,
    z: Any,
    outputs: Any,
    factors: Any,
    h: Any,
    c: Any,
) -> None:
    """A block of time steps; h and c, the states to return, stay in VMEM to the last block."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        h[...] = h_first[...]
        c[...] = c_first[...]

    @pl.loop(0, z.shape[0])
    def _(t: jax.Array) -> None:
        recurrent = jnp.dot(
            h[...].astype(weight.dtype), weight[...], preferred_element_type=jnp.float32
        )
        h[...], c[...], found = gates.forward(z[t].astype(jnp.float32) + recurrent, c[...], axis=-1)
        outputs[t] = h[...].astype(outputs.dtype)
        factors[t] = jnp.concatenate(found, axis=-1).astype(factors.dtype)


def _backward_kernel(
    weight: Any,
    dh_last: Any,
    dc_last: Any,
    d_outputs: Any,
    factors: Any,
    dz: Any,
    dh: Any,
    dc: Any,
) -> None:
    """A block of time steps backwards; dh and dc stay in VMEM to the first of all."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        dh[...] = dh_last[...]
        dc[...] = dc_last[...]

    @pl.loop(0, dz.shape[0])
    def _(index: jax.Array) -> None:
        t = dz.shape[0] - 1 - index
        dz_gates, dc[...] = gates.backward(
            dh[...] + d_outputs[t].astype(jnp.float32),
            dc[...],
            gates.Factors(*jnp.split(factors[t].astype(jnp.float32), NUM_FACTORS, axis=-1)),
        )
        dz[t] = jnp.concatenate(dz_gates, axis=-1).astype(dz.dtype)
        # dz · weightᵀ, the weight as it lies.
        dh[...] = jax.lax.dot_general(
            dz[t], weight[...], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
