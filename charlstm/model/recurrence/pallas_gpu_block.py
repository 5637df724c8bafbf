"""Has what both kernels of `pallas_gpu` use: a block's place, its counters, its tiles.

Written for the Pallas Mosaic GPU of jax 0.11 and 0.12; that of jax 0.10 is another.
"""

# mypy sees the Mosaic of jax 0.10.
# mypy: disable-error-code="attr-defined,call-arg"

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.pallas import mosaic_gpu as plgpu

from charlstm.model import gates
from charlstm.model.recurrence.pallas_gpu_plan import ROWS, Plan

NUM_FACTORS = len(gates.Factors._fields)
COUNTER_STRIDE = 32  # int32 between the counters of two chains: a cache line
TILED = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
LAYOUT = plgpu.Layout.WGMMA


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
    def here(cls, plan: Plan) -> "Place":
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
            plan.hidden_size // plan.units,
        )

    def announce(self) -> None:
        """Tells the other blocks that this one's share of the exchange is in global memory."""
        fence("fence.proxy.async;")  # the copy engine reads what threads have stored
        warpgroup_barrier()
        plgpu.semaphore_signal(self.counter, memory_scope="gpu")

    def wait(self, times: jax.Array) -> None:
        """Waits until all blocks have announced theirs so many times."""
        plgpu.semaphore_wait(self.counter, times * self.blocks, decrement=False, memory_scope="gpu")
        fence("fence.proxy.async;")


class Kernel:
    """Does what the kernels of both directions share, as one warpgroup sees it.

    Args:
      plan: how the work is cut.
      window: T.
      refs: the arguments of the kernel.
    """

    def __init__(self, plan: Plan, window: int, refs: Any):
        self.plan, self.window, self.refs = plan, window, refs
        self.place = Place.here(plan)
        self.columns = plan.units // 8  # of eight units

    def units(self, column: int) -> Any:
        """Returns the units of a column."""
        return pl.ds(self.place.block * self.plan.units + 8 * column, 8)

    def gate_units(self, gate: int, column: int) -> Any:
        """Returns where a gate of these units is in a row of 4H."""
        start = gate * self.plan.hidden_size + self.place.block * self.plan.units + 8 * column
        return pl.ds(start, 8)

    def slot(self, k: Any) -> Any:
        """Returns where the k-th tile lies."""
        if self.plan.stages >= self.plan.tiles or isinstance(k, int):
            return k % self.plan.stages if isinstance(k, int) else k
        return lax.rem(k, jnp.int32(self.plan.stages))

    def barrier(self, k: Any) -> Any:
        """Returns the index of the k-th tile's barrier."""
        return self.place.thread * self.plan.stages + self.slot(k)

    def first_tiles(self) -> range:
        """Returns the tiles that there is room for at once."""
        return range(min(self.plan.stages, self.plan.tiles))

    def product(
        self, ready: Any, tiles: Any, weight: Any, num_columns: int, refill: Callable[[Any], None]
    ) -> Any:
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
            @pl.loop(0, plan.tiles)
            def _(k: jax.Array) -> None:
                plgpu.barrier_wait(ready.at[self.barrier(k)])
                plgpu.wgmma(
                    accumulator,
                    tiles.at[self.place.thread, self.slot(k)],
                    weight.at[:, pl.ds(k * plan.tile, plan.tile)].T,
                )
                if plan.stages < plan.tiles:
                    can_refill = (k >= 1) & (k - 1 + plan.stages < plan.tiles)
                    pl.when(can_refill)(lambda: refill(k - 1))

            return accumulator[...]

        return pl.run_scoped(multiply, plgpu.ACC((ROWS, num_columns), jnp.float32))


def launch(plan: Plan, body: Callable[..., None], **arguments: Any) -> Any:
    """Returns a kernel with the blocks of a plan; see `plgpu.kernel` for the other arguments."""
    return plgpu.kernel(
        body,
        grid=(plan.groups, plan.hidden_size // (plan.units * plan.cluster)),
        grid_names=("group", "cluster"),
        cluster=(plan.cluster,),
        cluster_names=("peer",),
        num_threads=plan.threads,
        thread_name="thread",
        compiler_params=plgpu.CompilerParams(approx_math=True, unsafe_no_auto_barriers=True),
        **arguments,
    )


def ring(plan: Plan) -> tuple[Any, Any]:
    """Returns the shared memory for tiles of h or dz, and a barrier for each tile."""
    shape = plan.threads, plan.stages, ROWS, plan.tile
    tiles = plgpu.SMEM(shape, jnp.bfloat16, transforms=TILED)
    return tiles, plgpu.Barrier(num_barriers=plan.threads * plan.stages)


def load(ref: Any) -> jax.Array:
    """Loads [64, 8] from global memory into the layout of a product's result."""
    return plgpu.load(ref, layout=LAYOUT, optimized=False)


def store(ref: Any, value: jax.Array) -> None:
    """Stores [64, 8] to global memory; rows of less than a sector are refused by default."""
    if hasattr(plgpu, "store"):  # from jax 0.12 on
        plgpu.store(ref, value, optimized=False)
    else:
        ref[...] = value


def fence(instruction: str) -> None:
    """Emits a fence."""

    @plgpu.inline_mgpu()
    def emit(_: Any) -> None:
        mgpu.utils.inline_ptx(instruction, has_side_effects=True)

    emit()


def warpgroup_barrier() -> None:
    """Waits for the other threads of the warpgroup."""

    @plgpu.inline_mgpu()
    def emit(_: Any) -> None:
        mgpu.utils.warpgroup_barrier()

    emit()
