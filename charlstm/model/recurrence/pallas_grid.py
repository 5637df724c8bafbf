"""The grid of a Pallas TPU kernel over a window: the blocks that the window is cut into."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from charlstm.errors import UserError
from charlstm.runtime.shardings import dimension

# TPU cores up to v4 have 16 MiB of VMEM, and later ones, which have more, do not grant all of it to
# a kernel by default; 1 MiB is left to the compiler.
VMEM_BYTES = 15 * 2**20

# A register holds 8 rows of 128 float32, or 16 rows of bfloat16: tiles are whole registers.
LANES = 128
ROWS = 16
MAX_STEPS_PER_BLOCK = 8


class Blocks(NamedTuple):
    """The blocks that the kernels cut a window into."""

    steps: int  # time steps in a block
    streams: int  # streams in a block

    @classmethod
    def choose(cls, window: int, streams: int, hidden_size: int, compute_dtype: Any) -> "Blocks":
        """Returns the most streams, and then the most time steps, that fit into VMEM.

        Streams come first: the matrix unit takes as long for a few rows as for many.

        Raises:
          UserError: not even the smallest block fits.
        """
        whole_tiles = [n for n in range(ROWS, streams, ROWS) if streams % n == 0]
        all_steps = [n for n in range(1, MAX_STEPS_PER_BLOCK + 1) if window % n == 0]
        choices = [cls(n, b) for b in [*whole_tiles, streams] for n in all_steps]
        fitting = [
            choice
            for choice in choices
            if choice.vmem_bytes(hidden_size, compute_dtype) <= VMEM_BYTES
        ]
        if not fitting:
            needed = choices[0].vmem_bytes(hidden_size, compute_dtype) / 2**20
            raise UserError(
                f"model.recurrence=pallas_tpu keeps the weights of a layer in VMEM, and "
                f"model.hidden_size={hidden_size} in {jnp.dtype(compute_dtype).name} needs "
                f"{needed:.0f} MiB of the {VMEM_BYTES // 2**20} there are: "
                f"set model.recurrence=scan"
            )
        return max(fitting, key=lambda choice: (choice.streams, choice.steps))

    def vmem_bytes(self, hidden_size: int, compute_dtype: Any) -> int:
        """Returns the bytes that either kernel holds in VMEM; both hold the same amounts."""
        item = jnp.dtype(compute_dtype).itemsize
        row = self.streams * hidden_size
        weight = 4 * hidden_size**2 * item
        # Two buffers each of z or dz [·, 4H], the factors [·, 6H], and outputs or gradients [·, H].
        streamed = 2 * self.steps * row * (4 + 6 + 1) * item
        # float32 [B, H]: the two states given, and two buffers each of the two returned.
        states = (2 + 4) * row * 4
        # float32 [B, H]: the pre-activations or their gradient, and the factors.
        temporaries = (4 + 6) * row * 4
        return weight + streamed + states + temporaries


class TimeGrid(NamedTuple):
    """Runs a kernel over blocks of streams and, for each, over the blocks of time in turn."""

    kernel: Callable[..., None]
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
        blocks = Blocks.choose(window, streams, hidden_size, weight.dtype)
        grid = (streams // blocks.streams, window // blocks.steps)

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
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            interpret=self.interpret,
        )(weight, *states, *by_time)
        return found[: len(widths)], found[len(widths) :]
