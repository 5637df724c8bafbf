"""The backward kernel of `pallas_gpu`: a window of one layer, from the last time step to the first.

Written for the Pallas Mosaic GPU of jax 0.11 and 0.12; that of jax 0.10 is another.
"""

# mypy sees the Mosaic of jax 0.10.
# mypy: disable-error-code="attr-defined,call-arg"

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import gpu

from charlstm.model import gates
from charlstm.model.recurrence.pallas_gpu_block import (
    LAYOUT,
    NUM_FACTORS,
    TILED,
    Kernel,
    fence,
    launch,
    load,
    ring,
    store,
    warpgroup_barrier,
)
from charlstm.model.recurrence.pallas_gpu_plan import ROWS, Plan


def backward_window(
    plan: Plan,
    weight_hh: jax.Array,
    factors: jax.Array,
    d_outputs: jax.Array,
    dh_last: jax.Array,
    dc_last: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs the backward kernel.

    Args:
      plan: how it is cut.
      weight_hh: [H, 4H] float32.
      factors: of `forward_window`.
      d_outputs: [T, B, H] bfloat16, the gradient with respect to the outputs.
      dh_last, dc_last: [B, H] float32, with respect to the state after the window.

    Returns:
      dz [T, B, 4H] bfloat16, and the gradients with respect to the state before the window.
    """
    window, streams, hidden_size = d_outputs.shape
    tiles, tiles_ready = ring(plan)

    def body(*refs: Any) -> None:
        BackwardKernel(plan, window, BackwardRefs(*refs)).run()

    run = launch(
        plan,
        body,
        out_type=(
            jax.ShapeDtypeStruct((window, streams, 4 * hidden_size), jnp.bfloat16),
            jax.ShapeDtypeStruct(dh_last.shape, jnp.float32),
            jax.ShapeDtypeStruct(dc_last.shape, jnp.float32),
        ),
        scratch_types=(
            plgpu.SMEM((plan.units * plan.cluster, plan.depth), jnp.bfloat16, transforms=TILED),
            tiles,
            plgpu.SMEM((plan.threads, plan.cluster, plan.units // 8, ROWS, 8), jnp.float32),
            plgpu.Barrier(num_barriers=1),
            tiles_ready,
            plgpu.ClusterBarrier(collective_axes=("peer",), num_barriers=plan.threads),
        ),
        kernel_name="lstm_backward",
    )
    dz, dh, dc = run(weight_hh.astype(jnp.bfloat16), factors, d_outputs, dh_last, dc_last)
    return dz, dh, dc


@dataclasses.dataclass(frozen=True)
class BackwardRefs:
    """The arguments of the backward kernel: inputs, outputs and scratch memory, in this order."""

    weight: Any
    factors: Any
    d_outputs: Any
    dh_last: Any
    dc_last: Any
    dz: Any
    dh_first: Any
    dc_first: Any
    weight_smem: Any
    dz_smem: Any
    sums: Any
    weight_ready: Any
    dz_ready: Any
    sums_ready: Any


class BackwardKernel(Kernel):
    """Walks through a window, from the last time step to the first."""

    refs: BackwardRefs

    def run(self) -> None:
        """Runs the kernel."""
        refs, place = self.refs, self.place
        pl.when(place.thread == 0)(self._fetch_weight)
        plgpu.barrier_wait(refs.weight_ready.at[0])
        columns = range(self.columns)
        dh = [load(refs.dh_last.at[place.rows, self.units(column)]) for column in columns]
        dc = [load(refs.dc_last.at[place.rows, self.units(column)]) for column in columns]
        start = (dh, dc, self._read_saved(jnp.int32(self.window - 1)))
        dh, dc, _ = lax.fori_loop(0, self.window, self._step, start)
        for column in columns:
            store(refs.dh_first.at[place.rows, self.units(column)], dh[column])
            store(refs.dc_first.at[place.rows, self.units(column)], dc[column])
        # No block leaves while another reads its shared memory.
        meet(refs.sums_ready.at[place.thread])

    def _fetch_weight(self) -> None:
        shared = self.plan.units * self.plan.cluster
        plgpu.copy_gmem_to_smem(
            self.refs.weight.at[
                pl.ds(lax.axis_index("cluster") * shared, shared),
                pl.ds(self.place.peer * self.plan.depth, self.plan.depth),
            ],
            self.refs.weight_smem,
            self.refs.weight_ready.at[0],
        )

    def _fetch(self, t: jax.Array, k: Any) -> None:
        """Begins to bring the k-th tile of this block's part of dz."""
        start = self.place.peer * self.plan.depth + k * self.plan.tile
        plgpu.copy_gmem_to_smem(
            self.refs.dz.at[t, self.place.rows, pl.ds(start, self.plan.tile)],
            self.refs.dz_smem.at[self.place.thread, self.slot(k)],
            self.refs.dz_ready.at[self.barrier(k)],
        )

    def _read_saved(self, t: jax.Array) -> list[tuple[jax.Array, list[jax.Array]]]:
        refs, place = self.refs, self.place

        def read(column: int) -> tuple[jax.Array, list[jax.Array]]:
            eight = place.block * self.columns + column
            return load(refs.d_outputs.at[t, place.rows, self.units(column)]), [
                load(refs.factors.at[t, place.chain, eight, index]) for index in range(NUM_FACTORS)
            ]

        return [read(column) for column in range(self.columns)]

    def _refill(self, t: jax.Array, k: jax.Array) -> None:
        """Fetches another tile where the k-th was."""
        plgpu.wgmma_wait(1)
        warpgroup_barrier()
        self._fetch(t, k + self.plan.stages)

    def _step(self, index: jax.Array, carry: Any) -> Any:
        """Makes a time step; the carry is dh, dc and what the forward pass saved of this step."""
        dh, dc, saved = carry
        refs, place, units = self.refs, self.place, self.plan.units
        t = self.window - 1 - index
        dc_after = []
        for column in range(self.columns):
            d_output, found = saved[column]
            dz_gates, dc_new = gates.backward(
                dh[column] + d_output.astype(jnp.float32),
                dc[column],
                gates.Factors(*(factor.astype(jnp.float32) for factor in found)),
            )
            for gate, dz_gate in enumerate(dz_gates):
                there = refs.dz.at[t, place.rows, self.gate_units(gate, column)]
                store(there, dz_gate.astype(jnp.bfloat16))
            dc_after.append(dc_new)
        place.announce()
        saved = self._read_saved(jnp.maximum(t - 1, 0))
        place.wait(index + 1)
        for k in self.first_tiles():
            self._fetch(t, k)
        num_columns = units * self.plan.cluster
        part = self.product(
            refs.dz_ready, refs.dz_smem, refs.weight_smem, num_columns, lambda k: self._refill(t, k)
        )
        return self._exchange(part), dc_after, saved

    def _exchange(self, part: jax.Array) -> list[jax.Array]:
        """Adds up the parts that the blocks of the cluster have found for this block's units."""
        sums, place = self.refs.sums, self.place
        for peer in range(self.plan.cluster):
            for column in range(self.columns):
                start = peer * self.plan.units + 8 * column
                sums[place.thread, peer, column] = part[:, start : start + 8]
        meet(self.refs.sums_ready.at[place.thread])
        dh = []
        for column in range(self.columns):
            mine = sums.at[place.thread, place.peer, column]
            total = load_from_peer(mine, 0)
            for peer in range(1, self.plan.cluster):
                total = total + load_from_peer(mine, peer)
            dh.append(total)
        return dh


def meet(barrier: Any) -> None:
    """Waits for the other blocks of the cluster, whose shared memory is read after it."""
    fence("fence.acq_rel.cluster;")
    warpgroup_barrier()
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)
    fence("fence.acq_rel.cluster;")


def load_from_peer(ref: Any, peer: int) -> jax.Array:
    """Loads [64, 8] float32 from the shared memory of another block of the cluster."""

    @plgpu.inline_mgpu(
        arg_types=(plgpu.RefType(),),
        return_type=plgpu.ShapeDtypeStruct((ROWS, 8), jnp.float32, LAYOUT),
    )
    def load(_: Any, ref: Any) -> Any:
        index = mgpu.utils.c(peer, ir.IndexType.get())
        there = mgpu.utils.get_cluster_ref(ref, gpu.Dimension.x, index, generic=False)
        return mgpu.FragmentedArray.load_untiled(
            there, layout=mgpu.WGMMA_LAYOUT, swizzle=16, optimized=False
        )

    loaded: jax.Array = load(ref)
    return loaded
