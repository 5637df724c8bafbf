"""An LSTM layer as one persistent kernel of a Hopper GPU, and another one for its gradient.

Every multiprocessor runs one block, which owns a few units: their columns of `weight_hh` stay in
shared memory, their cell states in registers. What all blocks need of one another in every time
step, h (or dz on the way back), goes through global memory, where a counter tells how many blocks
have written theirs.

Streams are cut into chains of 64, the rows of one matrix instruction. A chain is a recurrence of
its own, with its own counter, and is run by one warpgroup of every block: while one chain waits for
the other blocks, another computes.

Forward, the blocks of a cluster read the same h, and the copy engine brings it to all of them at
once. Backward, dh of a unit is a product over 4H. The blocks of a cluster share it: each multiplies
a part of the 4H for the units of all, and they add up the sums through each other's shared memory.

Written for jax 0.11.2; the Pallas Mosaic GPU of jax 0.10 is another.
"""

# mypy sees the Mosaic of jax 0.10.
# mypy: disable-error-code="attr-defined,call-arg"

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import gpu

from charlstm.errors import UserError
from charlstm.model import gates
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.scan import before, weight_gradient

OLDEST_JAX = 0, 11
NUM_FACTORS = len(gates.Factors._fields)
ROWS = 64  # streams of a chain: the rows of a warpgroup's matrix instruction
TILES = 128, 64  # columns of h or dz in one copy: two swizzle atoms of 64, or one
NUM_BLOCKS = 132  # multiprocessors, each of which holds one block
SMEM_BYTES = 227 * 1024
COUNTER_STRIDE = 32  # int32 between the counters of two chains: a cache line
TILED = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
LAYOUT = plgpu.Layout.WGMMA
CLUSTERS = 2, 8  # forward and backward


def check_version() -> None:
    """Raises UserError if JAX is older than what the kernels are written for."""
    if jax.__version_info__ < OLDEST_JAX:
        oldest = ".".join(map(str, OLDEST_JAX))
        raise UserError(
            f"the Mosaic kernel needs jax {oldest} or newer, and this is {jax.__version__}: "
            f"pip install 'jax[cuda13]>={oldest}'"
        )


class Plan(NamedTuple):
    """Describes how a kernel is cut into blocks, clusters and warpgroups."""

    units: int  # of a block; a multiple of 8
    threads: int  # warpgroups of a block, each with a chain of 64 streams
    groups: int  # of blocks: each group has `threads` chains
    cluster: int  # blocks that share what they read (forward) or a product (backward)
    tile: int  # columns of h or dz that one copy brings
    stages: int  # tiles that a warpgroup has room for

    @classmethod
    def choose(cls, streams: int, hidden_size: int, backward: bool, cluster: int) -> "Plan":
        """Returns the plan that reads least, and of these the one with the most room.

        Raises:
          UserError: no plan fits the multiprocessors and their shared memory.
        """
        depth = 4 * hidden_size // cluster if backward else hidden_size
        chains = streams // ROWS
        choices = [
            cls(units, threads, chains // threads, cluster, tile, stages)
            for units in (8, 16, 24, 32)
            if hidden_size % (units * cluster) == 0
            for threads in (1, 2, 4)
            if chains and chains % threads == 0
            for tile in TILES
            if depth % tile == 0 and hidden_size % 64 == 0
            for stages in range(min(2, depth // tile), depth // tile + 1)
        ]
        fitting = [plan for plan in choices if plan.fits(hidden_size, backward)]
        if streams % ROWS or not fitting:
            raise UserError(
                f"the Mosaic kernel keeps the weights of a layer in the shared memory of "
                f"{NUM_BLOCKS} multiprocessors, and cannot cut hidden size {hidden_size} and "
                f"{streams} streams in clusters of {cluster}: take a multiple of {ROWS} streams, "
                f"or fewer"
            )
        return min(fitting, key=lambda plan: (plan.threads, -plan.stages * plan.tile, -plan.tile))

    def smem_bytes(self, hidden_size: int, backward: bool) -> int:
        """Returns the bytes of shared memory of a block."""
        weight = 8 * self.units * hidden_size
        ring = self.threads * self.stages * ROWS * self.tile * 2
        sums = self.threads * self.cluster * ROWS * self.units * 4 if backward else 0
        return weight + ring + sums + 1024  # barriers

    def fits(self, hidden_size: int, backward: bool) -> bool:
        """Tells whether all blocks run at once."""
        blocks = self.groups * hidden_size // self.units
        barriers = self.threads * self.stages <= 32  # as many as Mosaic has in one array
        memory = self.smem_bytes(hidden_size, backward) <= SMEM_BYTES
        return blocks <= NUM_BLOCKS and memory and barriers

    @property
    def chains(self) -> int:
        """Returns how many chains of 64 streams there are."""
        return self.groups * self.threads

    def ring(self) -> Any:
        """Returns the shared memory for tiles of h or dz, and a barrier for each tile."""
        tiles = plgpu.SMEM(
            (self.threads, self.stages, ROWS, self.tile), jnp.bfloat16, transforms=TILED
        )
        return tiles, plgpu.Barrier(num_barriers=self.threads * self.stages)

    def kernel(self, body: Any, hidden_size: int, **arguments: Any) -> Any:
        """Returns a kernel of this plan; see `plgpu.kernel` for the arguments."""
        return plgpu.kernel(
            body,
            grid=(self.groups, hidden_size // (self.units * self.cluster)),
            grid_names=("group", "cluster"),
            cluster=(self.cluster,),
            cluster_names=("peer",),
            num_threads=self.threads,
            thread_name="thread",
            compiler_params=plgpu.CompilerParams(approx_math=True, unsafe_no_auto_barriers=True),
            **arguments,
        )


def layer(
    share: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
    clusters: tuple[int, int] = (0, 0),
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer.

    Args:
      share: [T, B, 4H] bfloat16.
      weight_hh: [H, 4H] float32.
      h, c: [B, H] float32, the state before the window.
      clusters: blocks of a cluster, forward and backward; 0 for those of `CLUSTERS`.

    Returns:
      The outputs [T, B, H] bfloat16, and h and c after the window, float32.

    Raises:
      UserError: the sizes do not fit, or `share` has another dtype.
    """
    if share.dtype != jnp.bfloat16:
        raise UserError(f"the Mosaic kernel computes in bfloat16, not {share.dtype}")
    clusters = clusters[0] or CLUSTERS[0], clusters[1] or CLUSTERS[1]
    for backward, cluster in enumerate(clusters):
        Plan.choose(h.shape[0], h.shape[1], bool(backward), cluster)
    outputs, h, c = _layer(clusters, share, weight_hh, h, c)
    return outputs, h, c


def _forward(
    clusters: tuple[int, int],
    share: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    outputs, h_last, c_last, factors = forward_window(clusters[0], share, weight_hh, h, c)
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    clusters: tuple[int, int],
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, factors = residuals
    dz, dh, dc = backward_window(clusters[1], weight_hh, factors, *gradients)
    return dz, weight_gradient(before(h_first, outputs), dz, weight_hh), dh, dc


_layer = with_gradient(_forward, _backward, num_static=1)


def forward_window(
    cluster: int, share: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Runs the forward kernel.

    Args:
      cluster: blocks that are brought the same h at once.
      share, weight_hh, h, c: see `layer`.

    Returns:
      The outputs [T, B, H] bfloat16, h and c after the window, and the factors of the derivative,
      [T, chains, H / 8, 6, 64, 8] bfloat16.
    """
    window, streams, _ = share.shape
    hidden_size = weight_hh.shape[0]
    plan = Plan.choose(streams, hidden_size, False, cluster)
    factors = (window, plan.chains, hidden_size // 8, NUM_FACTORS, ROWS, 8)
    tiles, tiles_ready = plan.ring()

    def body(*refs: Any) -> None:
        ForwardKernel(plan, hidden_size, window, ForwardRefs(*refs)).run()

    run = plan.kernel(
        body,
        hidden_size,
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


def backward_window(
    cluster: int,
    weight_hh: jax.Array,
    factors: jax.Array,
    d_outputs: jax.Array,
    dh_last: jax.Array,
    dc_last: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs the backward kernel.

    Args:
      cluster: blocks that share a product over 4H.
      weight_hh: [H, 4H] float32.
      factors: of `forward_window`.
      d_outputs: [T, B, H] bfloat16, the gradient with respect to the outputs.
      dh_last, dc_last: [B, H] float32, with respect to the state after the window.

    Returns:
      dz [T, B, 4H] bfloat16, and the gradients with respect to the state before the window.
    """
    window, streams, hidden_size = d_outputs.shape
    plan = Plan.choose(streams, hidden_size, True, cluster)
    tiles, tiles_ready = plan.ring()

    def body(*refs: Any) -> None:
        BackwardKernel(plan, hidden_size, window, BackwardRefs(*refs)).run()

    run = plan.kernel(
        body,
        hidden_size,
        out_type=(
            jax.ShapeDtypeStruct((window, streams, 4 * hidden_size), jnp.bfloat16),
            jax.ShapeDtypeStruct(dh_last.shape, jnp.float32),
            jax.ShapeDtypeStruct(dc_last.shape, jnp.float32),
        ),
        scratch_types=(
            plgpu.SMEM(
                (plan.units * cluster, 4 * hidden_size // cluster), jnp.bfloat16, transforms=TILED
            ),
            tiles,
            plgpu.SMEM((plan.threads, cluster, plan.units // 8, ROWS, 8), jnp.float32),
            plgpu.Barrier(num_barriers=1),
            tiles_ready,
            plgpu.ClusterBarrier(collective_axes=("peer",), num_barriers=plan.threads),
        ),
        kernel_name="lstm_backward",
    )
    dz, dh, dc = run(weight_hh.astype(jnp.bfloat16), factors, d_outputs, dh_last, dc_last)
    return dz, dh, dc


class Place(NamedTuple):
    """Where a warpgroup is, and the counter of its chain."""

    thread: jax.Array
    peer: jax.Array
    chain: jax.Array
    block: jax.Array  # its units are the block-th
    rows: Any  # its streams
    counter: Any
    blocks: int  # that take part in a chain

    @classmethod
    def here(cls, plan: Plan, hidden_size: int) -> "Place":
        """Returns the place of the warpgroup that asks."""
        thread, peer = lax.axis_index("thread"), lax.axis_index("peer")
        chain = lax.axis_index("group") * plan.threads + thread
        block = lax.axis_index("cluster") * plan.cluster + peer
        counters = pl.get_global(plgpu.SemaphoreType.REGULAR((plan.chains * COUNTER_STRIDE,)))
        return cls(
            thread,
            peer,
            chain,
            block,
            pl.ds(chain * ROWS, ROWS),
            counters.at[chain * COUNTER_STRIDE],
            hidden_size // plan.units,
        )

    def announce(self) -> None:
        """Tells the other blocks that this one's share of the exchange is in global memory."""
        _fence("fence.proxy.async;")  # the copy engine reads what threads have stored
        _warpgroup_barrier()
        plgpu.semaphore_signal(self.counter, memory_scope="gpu")

    def wait(self, times: jax.Array) -> None:
        """Waits until all blocks have announced theirs so many times."""
        plgpu.semaphore_wait(self.counter, times * self.blocks, decrement=False, memory_scope="gpu")
        _fence("fence.proxy.async;")


class Kernel:
    """Does what the kernels of both directions share, as one warpgroup sees it.

    Args:
      plan: how the work is cut.
      hidden_size: H.
      window: T.
      depth: what a block's product sums over.
    """

    def __init__(self, plan: Plan, hidden_size: int, window: int, depth: int):
        self.plan, self.hidden_size, self.window = plan, hidden_size, window
        self.place = Place.here(plan, hidden_size)
        self.tiles = depth // plan.tile
        self.columns = plan.units // 8  # of eight units

    def units(self, column: int) -> Any:
        """Returns the units of a column."""
        return pl.ds(self.place.block * self.plan.units + 8 * column, 8)

    def gate_units(self, gate: int, column: int) -> Any:
        """Returns where a gate of these units is in a row of 4H."""
        start = gate * self.hidden_size + self.place.block * self.plan.units + 8 * column
        return pl.ds(start, 8)

    def slot(self, k: Any) -> Any:
        """Returns where the k-th tile lies."""
        if self.plan.stages >= self.tiles or isinstance(k, int):
            return k % self.plan.stages if isinstance(k, int) else k
        return lax.rem(k, jnp.int32(self.plan.stages))

    def barrier(self, k: Any) -> Any:
        """Returns the index of the k-th tile's barrier."""
        return self.place.thread * self.plan.stages + self.slot(k)

    def first_tiles(self) -> range:
        """Returns the tiles that there is room for at once."""
        return range(min(self.plan.stages, self.tiles))

    def product(self, ready: Any, tiles: Any, weight: Any, num_columns: int, refill: Any) -> Any:
        """Multiplies the tiles, as they come, by the resident weights.

        Args:
          ready: a barrier for each tile.
          tiles: their shared memory.
          weight: the resident weights, [num_columns, depth].
          num_columns: of the result.
          refill: `refill(k)` fetches another tile where the k-th was.

        Returns:
          The product, [64, num_columns] float32.
        """
        plan = self.plan

        def multiply(accumulator: Any) -> jax.Array:
            @pl.loop(0, self.tiles)
            def _(k: jax.Array) -> None:
                slot = self.slot(k)
                plgpu.barrier_wait(ready.at[self.place.thread * plan.stages + slot])
                plgpu.wgmma(
                    accumulator,
                    tiles.at[self.place.thread, slot],
                    weight.at[:, pl.ds(k * plan.tile, plan.tile)].T,
                )
                if plan.stages < self.tiles:
                    can_refill = (k >= 1) & (k - 1 + plan.stages < self.tiles)
                    pl.when(can_refill)(lambda: refill(k - 1))

            return accumulator[...]

        return pl.run_scoped(multiply, plgpu.ACC((ROWS, num_columns), jnp.float32))


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

    def __init__(self, plan: Plan, hidden_size: int, window: int, refs: ForwardRefs):
        super().__init__(plan, hidden_size, window, hidden_size)
        self.refs = refs

    def run(self) -> None:
        """Runs the kernel."""
        refs, place = self.refs, self.place
        pl.when(place.thread == 0)(self._fetch_weight)
        plgpu.barrier_wait(refs.weight_ready.at[0])
        for k in self.first_tiles():
            self._fetch(refs.h_first.at[place.rows], k)
        c = [_load(refs.c_first.at[place.rows, self.units(n)]) for n in range(self.columns)]
        start = (c, list(c), self._read_share(jnp.int32(0)))
        c, h, _ = lax.fori_loop(0, self.window, self._step, start)
        for column in range(self.columns):
            refs.h_last[place.rows, self.units(column)] = h[column]
            refs.c_last[place.rows, self.units(column)] = c[column]

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
            return _load(self.refs.share.at[t, self.place.rows, self.gate_units(gate, column)])

        return [[read(gate, column) for column in range(self.columns)] for gate in range(4)]

    def _refill(self, t: jax.Array, k: jax.Array) -> None:
        """Fetches another tile where the k-th was."""
        plgpu.wgmma_wait(1)
        _warpgroup_barrier()
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
            h_new, c_new, new = _cell(parts, c[column])
            refs.outputs[t, place.rows, self.units(column)] = h_new.astype(jnp.bfloat16)
            c_after.append(c_new)
            h_after.append(h_new)
            found.append(new)
        place.announce()
        # What is left to do does not keep the other blocks waiting.
        for column in range(self.columns):
            eight = place.block * self.columns + column
            for index, factor in enumerate(found[column]):
                refs.factors[t, place.chain, eight, index] = factor.astype(jnp.bfloat16)
        shares = self._read_share(jnp.minimum(t + 1, self.window - 1))

        @pl.when(t + 1 < self.window)
        def _() -> None:
            place.wait(t + 1)
            for k in self.first_tiles():
                self._fetch(refs.outputs.at[t, place.rows], k)

        return c_after, h_after, shares


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

    def __init__(self, plan: Plan, hidden_size: int, window: int, refs: BackwardRefs):
        self.depth = 4 * hidden_size // plan.cluster
        super().__init__(plan, hidden_size, window, self.depth)
        self.refs = refs

    def run(self) -> None:
        """Runs the kernel."""
        refs, place = self.refs, self.place
        pl.when(place.thread == 0)(self._fetch_weight)
        plgpu.barrier_wait(refs.weight_ready.at[0])
        columns = range(self.columns)
        dh = [_load(refs.dh_last.at[place.rows, self.units(column)]) for column in columns]
        dc = [_load(refs.dc_last.at[place.rows, self.units(column)]) for column in columns]
        start = (dh, dc, self._read_saved(jnp.int32(self.window - 1)))
        dh, dc, _ = lax.fori_loop(0, self.window, self._step, start)
        for column in columns:
            refs.dh_first[place.rows, self.units(column)] = dh[column]
            refs.dc_first[place.rows, self.units(column)] = dc[column]
        # No block leaves while another reads its shared memory.
        _meet(refs.sums_ready.at[place.thread])

    def _fetch_weight(self) -> None:
        shared = self.plan.units * self.plan.cluster
        plgpu.copy_gmem_to_smem(
            self.refs.weight.at[
                pl.ds(lax.axis_index("cluster") * shared, shared),
                pl.ds(self.place.peer * self.depth, self.depth),
            ],
            self.refs.weight_smem,
            self.refs.weight_ready.at[0],
        )

    def _fetch(self, t: jax.Array, k: Any) -> None:
        """Begins to bring the k-th tile of this block's part of dz."""
        start = self.place.peer * self.depth + k * self.plan.tile
        plgpu.copy_gmem_to_smem(
            self.refs.dz.at[t, self.place.rows, pl.ds(start, self.plan.tile)],
            self.refs.dz_smem.at[self.place.thread, self.slot(k)],
            self.refs.dz_ready.at[self.barrier(k)],
        )

    def _read_saved(self, t: jax.Array) -> list[tuple[jax.Array, list[jax.Array]]]:
        refs, place = self.refs, self.place

        def read(column: int) -> tuple[jax.Array, list[jax.Array]]:
            eight = place.block * self.columns + column
            return _load(refs.d_outputs.at[t, place.rows, self.units(column)]), [
                _load(refs.factors.at[t, place.chain, eight, index]) for index in range(NUM_FACTORS)
            ]

        return [read(column) for column in range(self.columns)]

    def _refill(self, t: jax.Array, k: jax.Array) -> None:
        """Fetches another tile where the k-th was."""
        plgpu.wgmma_wait(1)
        _warpgroup_barrier()
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
                at = self.gate_units(gate, column)
                refs.dz[t, place.rows, at] = dz_gate.astype(jnp.bfloat16)
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
        _meet(self.refs.sums_ready.at[place.thread])
        dh = []
        for column in range(self.columns):
            mine = sums.at[place.thread, place.peer, column]
            total = _load_from_peer(mine, 0)
            for peer in range(1, self.plan.cluster):
                total = total + _load_from_peer(mine, peer)
            dh.append(total)
        return dh


def _cell(z: list[jax.Array], c: jax.Array) -> tuple[jax.Array, jax.Array, gates.Factors]:
    """Does what `gates.forward` does, for gates that do not lie in one array."""
    i, f, g, o = _sigmoid(z[0]), _sigmoid(z[1]), jnp.tanh(z[2]), _sigmoid(z[3])
    c_after = f * c + i * g
    tanh_c = jnp.tanh(c_after)
    factors = gates.Factors(
        c=f,
        h=o * (1 - tanh_c * tanh_c),
        i=g * i * (1 - i),
        f=c * f * (1 - f),
        g=i * (1 - g * g),
        o=tanh_c * o * (1 - o),
    )
    return o * tanh_c, c_after, factors


def _sigmoid(z: jax.Array) -> jax.Array:
    return 0.5 * jnp.tanh(0.5 * z) + 0.5


def _load(ref: Any) -> jax.Array:
    """Loads [64, 8] from global memory into the layout of a product's result."""
    return plgpu.load(ref, layout=LAYOUT, optimized=False)


def _fence(instruction: str) -> None:
    @plgpu.inline_mgpu()
    def emit(_: Any) -> None:
        mgpu.utils.inline_ptx(instruction, has_side_effects=True)

    emit()


def _meet(barrier: Any) -> None:
    """Waits for the other blocks of the cluster, whose shared memory is read after it."""
    _fence("fence.acq_rel.cluster;")
    _warpgroup_barrier()
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)
    _fence("fence.acq_rel.cluster;")


def _load_from_peer(ref: Any, peer: int) -> jax.Array:
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


def _warpgroup_barrier() -> None:
    @plgpu.inline_mgpu()
    def emit(_: Any) -> None:
        mgpu.utils.warpgroup_barrier()

    emit()
