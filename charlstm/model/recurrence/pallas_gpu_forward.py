"""The forward kernel of `pallas_gpu`: a window of one layer, from the first time step to the last.

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
from jax.experimental.pallas import mosaic_gpu as plgpu

from charlstm.model import gates
from charlstm.model.recurrence.pallas_gpu_block import (
    NUM_FACTORS,
    TILED,
    Kernel,
    launch,
    load,
    ring,
    store,
    warpgroup_barrier,
)
from charlstm.model.recurrence.pallas_gpu_plan import ROWS, Plan


def forward_window(
    plan: Plan, share: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Runs the forward kernel.

    Args:
      plan: how it is cut.
      share: [T, B, 4H] bfloat16, the input's share of the pre-activations.
      weight_hh: [H, 4H] float32.
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] bfloat16, h and c after the window, float32, and the factors of the
      derivative, [T, chains, H / 8, 6, 64, 8] bfloat16.
    """
    window, streams, _ = share.shape
    hidden_size = plan.hidden_size
    factors = (window, plan.chains, hidden_size // 8, NUM_FACTORS, ROWS, 8)
    tiles, tiles_ready = ring(plan)

    def body(*refs: Any) -> None:
        ForwardKernel(plan, window, ForwardRefs(*refs)).run()

    run = launch(
        plan,
        body,
        out_type=(
            jax.ShapeDtypeStruct((window, streams, hidden_size), jnp.bfloat16),
            jax.ShapeDtypeStruct(h.shape, jnp.float32),
            jax.ShapeDtypeStruct(c.shape, jnp.float32),
            jax.ShapeDtypeStruct(factors, jnp.bfloat16),
        ),
        scratch_types=(
            plgpu.SMEM((4 * plan.units, hidden_size), jnp.bfloat16, transforms=TILED),
            tiles,
            plgpu.Barrier(num_arrivals=4, num_barriers=1),
            tiles_ready,
            plgpu.ClusterBarrier(
                collective_axes=("peer",), num_barriers=plan.threads * plan.stages
            ),
        ),
        kernel_name="lstm_forward",
    )
    # A block's columns as rows: [4, H (unit), H (sum)].
    weight = weight_hh.astype(jnp.bfloat16).T.reshape(4, hidden_size, hidden_size)
    outputs, h, c, saved = run(weight, share, h.astype(jnp.bfloat16), c)
    return outputs, h, c, saved


@dataclasses.dataclass(frozen=True)
class ForwardRefs:
    """The arguments of the forward kernel: inputs, outputs and scratch memory, in this order."""

    weight: Any
    share: Any
    h_first: Any
    c_first: Any
    outputs: Any
    h_last: Any
    c_last: Any
    factors: Any
    weight_smem: Any
    h_smem: Any
    weight_ready: Any
    h_ready: Any
    h_free: Any


class ForwardKernel(Kernel):
    """Walks through a window, from the first time step to the last."""

    refs: ForwardRefs

    def run(self) -> None:
        """Runs the kernel."""
        refs, place = self.refs, self.place
        pl.when(place.thread == 0)(self._fetch_weight)
        plgpu.barrier_wait(refs.weight_ready.at[0])
        for k in self.first_tiles():
            self._fetch(refs.h_first.at[place.rows], k)
        c = [load(refs.c_first.at[place.rows, self.units(n)]) for n in range(self.columns)]
        start = (c, list(c), self._read_share(jnp.int32(0)))
        c, h, _ = lax.fori_loop(0, self.window, self._step, start)
        for column in range(self.columns):
            store(refs.h_last.at[place.rows, self.units(column)], h[column])
            store(refs.c_last.at[place.rows, self.units(column)], c[column])

    def _fetch_weight(self) -> None:
        for gate in range(4):
            plgpu.copy_gmem_to_smem(
                self.refs.weight.at[
                    gate, pl.ds(self.place.block * self.plan.units, self.plan.units), :
                ],
                self.refs.weight_smem.at[pl.ds(gate * self.plan.units, self.plan.units)],
                self.refs.weight_ready.at[0],
            )

    def _fetch(self, source: Any, k: Any) -> None:
        """Begins to bring the k-th tile of h, to all blocks of the cluster."""
        plgpu.copy_gmem_to_smem(
            source.at[:, pl.ds(k * self.plan.tile, self.plan.tile)],
            self.refs.h_smem.at[self.place.thread, self.slot(k)],
            self.refs.h_ready.at[self.barrier(k)],
            collective_axes="peer" if self.plan.cluster > 1 else None,
        )

    def _read_share(self, t: jax.Array) -> list[list[jax.Array]]:
        def read(gate: int, column: int) -> jax.Array:
            return load(self.refs.share.at[t, self.place.rows, self.gate_units(gate, column)])

        return [[read(gate, column) for column in range(self.columns)] for gate in range(4)]

    def _refill(self, t: jax.Array, k: jax.Array) -> None:
        """Fetches another tile where the k-th was."""
        plgpu.wgmma_wait(1)
        warpgroup_barrier()
        if self.plan.cluster > 1:
            free = self.refs.h_free.at[self.barrier(k)]
            plgpu.barrier_arrive(free)
            plgpu.barrier_wait(free)

        first, later = self.refs.h_first.at[self.place.rows], self.refs.outputs
        tile = k + self.plan.stages
        pl.when(t == 0)(lambda: self._fetch(first, tile))
        pl.when(t > 0)(lambda: self._fetch(later.at[t - 1, self.place.rows], tile))

    def _step(self, t: jax.Array, carry: Any) -> Any:
        """Makes a time step; the carry is c, h and the share of this step."""
        c, shares = carry[0], carry[2]
        refs, place, units = self.refs, self.place, self.plan.units
        z = self.product(
            refs.h_ready, refs.h_smem, refs.weight_smem, 4 * units, lambda k: self._refill(t, k)
        )
        c_after, h_after, found = [], [], []
        for column in range(self.columns):
            parts = []
            for gate in range(4):
                start = gate * units + 8 * column
                recurrent = z[:, start : start + 8]
                parts.append(recurrent + shares[gate][column].astype(jnp.float32))
            h_new, c_new, new = _time_step(parts, c[column])
            output = refs.outputs.at[t, place.rows, self.units(column)]
            store(output, h_new.astype(jnp.bfloat16))
            c_after.append(c_new)
            h_after.append(h_new)
            found.append(new)
        place.announce()
        # What is left to do does not keep the other blocks waiting.
        for column in range(self.columns):
            eight = place.block * self.columns + column
            for index, factor in enumerate(found[column]):
                saved = refs.factors.at[t, place.chain, eight, index]
                store(saved, factor.astype(jnp.bfloat16))
        shares = self._read_share(jnp.minimum(t + 1, self.window - 1))

        @pl.when(t + 1 < self.window)
        def _() -> None:
            place.wait(t + 1)
            for k in self.first_tiles():
                self._fetch(refs.outputs.at[t, place.rows], k)

        return c_after, h_after, shares


def _time_step(z: list[jax.Array], c: jax.Array) -> tuple[jax.Array, jax.Array, gates.Factors]:
    """Does what `gates.forward` does, for gates that do not lie in one array."""
    return gates.step(_sigmoid(z[0]), _sigmoid(z[1]), jnp.tanh(z[2]), _sigmoid(z[3]), c)


def _sigmoid(z: jax.Array) -> jax.Array:
    """Returns the sigmoid by tanh, which is one instruction of the GPU."""
    return 0.5 * jnp.tanh(0.5 * z) + 0.5
