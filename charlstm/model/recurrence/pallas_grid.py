"""The grid of a Pallas TPU kernel over a window: the blocks that the window is cut into."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from charlstm.errors import UserError
from charlstm.model.compute import Compute
from charlstm.runtime.shardings import dimension
from charlstm.runtime.targets import Target

# A register holds 8 rows of 128 float32, or 16 rows of bfloat16: tiles are whole registers.
LANES = 128
ROWS = 16
# The matrix unit is 128 or 256 wide, and takes as long for fewer rows. More of them gain nothing,
# and each makes the program longer.
MAX_STREAMS_PER_BLOCK = 256
MAX_STEPS_PER_BLOCK = 8


class Core(NamedTuple):
    """A core of a TPU: what the choice of blocks depends on."""

    vmem: int = 16  # MiB
    per_device: int = 1  # each runs blocks of streams of its own
    bfloat16: bool = True  # whether a kernel has products in it

    @property
    def vmem_limit(self) -> int:
        """The bytes of VMEM that a kernel may take; the rest is left to the compiler."""
        return self.vmem * 2**20 * 15 // 16


# By the names that JAX has for chips. The figures are those of
# `jax.experimental.pallas.tpu.get_tpu_info_for_chip`; the compiler names the same sizes of VMEM
# when a kernel needs more. Of another chip the least is expected.
CORES = {
    **dict.fromkeys(("TPU v2", "TPU v3"), Core(bfloat16=False)),
    "TPU v4": Core(per_device=2),
    **dict.fromkeys(("TPU v5 lite", "TPU v5e"), Core(vmem=128)),
    **dict.fromkeys(("TPU v5", "TPU v5p"), Core(vmem=64, per_device=2)),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e"), Core(vmem=128)),
    "TPU7x": Core(vmem=64),
}


def core_of(target: Target) -> Core:
    """Returns a core of a target."""
    return CORES.get(target.chip, Core())


class Blocks(NamedTuple):
    """The blocks that the kernels cut a window into.

    The last block of streams may reach beyond the last stream: what is computed there is dropped.
    """

    steps: int  # time steps in a block
    streams: int  # streams in a block

    @classmethod
    def choose(cls, window: int, streams: int, hidden_size: int, compute: Compute) -> "Blocks":
        """Returns the most streams, and then the most time steps, that fit into VMEM.

        Streams come first: the matrix unit takes as long for a few rows as for many.

        Raises:
          UserError: not even the smallest block fits, or the chip has no products in this dtype.
        """
        core, chip, dtype = core_of(compute.target), compute.target.chip, compute.dtype
        if dtype == jnp.bfloat16 and not core.bfloat16:
            raise UserError(
                f"model.recurrence=pallas_tpu cannot multiply bfloat16 on a {chip}: set "
                "model.compute_dtype=float32, or model.recurrence=scan"
            )

        def fits(blocks: Blocks) -> bool:
            return blocks.vmem_bytes(hidden_size, dtype) <= core.vmem_limit

        sizes = range(ROWS, MAX_STREAMS_PER_BLOCK + 1, ROWS)
        fitting = [size for size in sizes if fits(cls(1, size))]
        if not fitting:
            needed = cls(1, ROWS).vmem_bytes(hidden_size, dtype) / 2**20
            raise UserError(
                f"model.recurrence=pallas_tpu keeps the weights of a layer in VMEM, and "
                f"model.hidden_size={hidden_size} in {dtype.name} needs {needed:.0f} MiB of the "
                f"{core.vmem_limit // 2**20} that a kernel may take on a {chip}: set "
                "model.recurrence=scan"
            )
        # As few blocks as possible, of equal size, as many on each core.
        count = core.per_device * pl.cdiv(streams, core.per_device * fitting[-1])
        size = min(streams, _round_up(pl.cdiv(streams, count), ROWS))
        all_steps = [n for n in range(1, MAX_STEPS_PER_BLOCK + 1) if window % n == 0]
        return max(blocks for n in all_steps if fits(blocks := cls(n, size)))

    def vmem_bytes(self, hidden_size: int, compute_dtype: Any) -> int:
        """Returns the most bytes that either kernel needs in VMEM; both have the same buffers."""
        item = jnp.dtype(compute_dtype).itemsize
        width = _round_up(hidden_size, LANES)
        row = _round_up(self.streams, ROWS) * width
        weight = 4 * width**2 * item
        # Two buffers each of z or dz [·, 4H], the factors [·, 6H], and outputs or gradients [·, H].
        streamed = 2 * self.steps * row * (4 + 6 + 1) * item
        # float32 [B, H]: the two states given, and two buffers each of the two returned.
        states = (2 + 4) * row * 4
        # What the compiler keeps between operations: less than four times float32 [B, H] and
        # 1.5 MiB in all that was tried.
        temporaries = 4 * row * 4 + 3 * 2**19
        return weight + streamed + states + temporaries


def _round_up(count: int, multiple: int) -> int:
    return pl.cdiv(count, multiple) * multiple


class TimeGrid(NamedTuple):
    """Runs a kernel over blocks of streams and, for each, over the blocks of time in turn."""

    kernel: Callable[..., None]
    compute: Compute
    interpret: bool
    reverse: bool

    def __call__(
        self,
        weight: jax.Array,
        states: tuple[jax.Array, jax.Array],
        by_time: list[jax.Array],
        widths: list[int],
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Runs the kernel on every device, each on its own streams.

        The kernel is given references to blocks of these arguments, then of the results.

        Args:
          weight: [H, 4H] in the compute dtype.
          states: two, [B, H] float32, before the first block.
          by_time: [T, B, ·] each, in the compute dtype.
          widths: of each result by time, in H.

        Returns:
          The results by time [T, B, width · H], in the compute dtype, and the two states after
          the last block.
        """

        def run(
            weight: jax.Array, states: tuple[jax.Array, jax.Array], by_time: list[jax.Array]
        ) -> Any:
            return self._run(weight, states, by_time, widths)

        if not jax.sharding.get_abstract_mesh().empty:
            # XLA cannot split a kernel over devices by itself.
            axis = dimension(states[0], 0)
            time, state = jax.P(None, axis, None), jax.P(axis, None)
            run = jax.shard_map(
                run,
                in_specs=(jax.P(None, None), state, time),
                out_specs=(time, state),
                check_vma=False,
            )
        return run(weight, states, by_time)

    def _run(
        self,
        weight: jax.Array,
        states: tuple[jax.Array, jax.Array],
        by_time: list[jax.Array],
        widths: list[int],
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        window, streams, _ = by_time[0].shape
        hidden_size = weight.shape[0]
        blocks = Blocks.choose(window, streams, hidden_size, self.compute)
        grid = (pl.cdiv(streams, blocks.streams), window // blocks.steps)

        def time_block(width: int) -> pl.BlockSpec:
            def place(b: jax.Array, t: jax.Array) -> tuple[Any, ...]:
                return (grid[1] - 1 - t if self.reverse else t), b, 0

            return pl.BlockSpec((blocks.steps, blocks.streams, width), place)

        def state_block(**options: Any) -> pl.BlockSpec:
            shape = (blocks.streams, hidden_size)
            return pl.BlockSpec(shape, lambda b, t: (b, 0), **options)

        # What never changes, or only with the streams, needs no second buffer.
        once = {"pipeline_mode": pl.Buffered(1)}
        found = pl.pallas_call(
            self.kernel,
            grid=grid,
            in_specs=[
                pl.BlockSpec(weight.shape, lambda b, t: (0, 0), **once),
                *(state_block(**once) for _ in states),
                *(time_block(array.shape[2]) for array in by_time),
            ],
            out_specs=[
                *(time_block(width * hidden_size) for width in widths),
                *(state_block() for _ in states),
            ],
            out_shape=[
                *(
                    jax.ShapeDtypeStruct((window, streams, width * hidden_size), weight.dtype)
                    for width in widths
                ),
                *(jax.ShapeDtypeStruct(state.shape, jnp.float32) for state in states),
            ],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"),
                vmem_limit_bytes=core_of(self.compute.target).vmem_limit,
            ),
            interpret=self.interpret,
        )(weight, *states, *by_time)
        return found[: len(widths)], found[len(widths) :]
