"""Cuts an LSTM layer into the blocks of a Hopper GPU, for the kernels of `pallas_gpu`.

In every time step a block waits for all others, so all of them must be resident at once. There are
no more blocks than multiprocessors, and none takes more shared memory than a multiprocessor has:
without clusters, all are resident. The blocks of a cluster, though, must lie in the same GPC:

- Multiprocessors come in pairs (TPCs), and each pair lies in one of at most 8 GPCs. So a GPC has
  room for an even number of blocks.
- While a cluster of k blocks, an even number, finds no place, every GPC has room for an even number
  of blocks below k: for k - 2 at most. Then at least 132 - 8 (k - 2) blocks are resident.
- So a kernel with no more blocks than that is resident as a whole, wherever its clusters were
  placed: with up to 132 blocks in clusters of 2, 116 in clusters of 4, and 84 in clusters of 8.

Plans keep to that unless they are asked for clusters of one size; whoever asks must know from the
GPU that `NUM_BLOCKS` blocks are resident in such clusters.

The argument is for a GPU that no other process uses. A kernel that ends by itself only delays the
start of this one. With several GPUs, XLA may begin to add up one layer's gradient while the kernel
of the layer below starts, and that addition waits for the other GPUs. It ends if NCCL starts its
blocks in the same order on all GPUs and they do not wait for one another: the blocks that the GPU
with the fewest has started are then started on all. That is not tested.
"""

import itertools
from typing import NamedTuple

from charlstm.errors import UserError

ROWS = 64  # streams of a chain: the rows of a warpgroup's matrix instruction
NUM_BLOCKS = 132  # multiprocessors, each of which holds one block
NUM_GPCS = 8  # at most, of a chip
SMEM_BYTES = 227 * 1024  # that a block may take
CLUSTERS = (2,), (8, 4, 2)  # forward and backward, in the order in which they are tried
UNITS = 8, 16, 24, 32
THREADS = 1, 2, 4
# Of a block, units times warpgroups: with more, registers are spilled.
MAX_UNITS_TIMES_THREADS = 64
TILES = 128, 64
MAX_BARRIERS = 32  # as many as Mosaic has in one array
# With 64 streams, all multiples of 64 up to this one fit.
LARGEST_HIDDEN_SIZE = 1600


class Plan(NamedTuple):
    """Describes how a kernel is cut into blocks, clusters and warpgroups."""

    backward: bool
    hidden_size: int
    units: int  # of a block; a multiple of 8
    threads: int  # warpgroups of a block, each with a chain of 64 streams
    groups: int  # of blocks: each group has `threads` chains
    cluster: int  # blocks that share what they read (forward) or a product (backward)
    tile: int  # columns of h or dz in one copy: two swizzle atoms of 64, or one
    stages: int  # tiles that a warpgroup has room for

    @classmethod
    def find(
        cls, streams: int, hidden_size: int, *, backward: bool, cluster: int = 0
    ) -> "Plan | None":
        """Returns the plan that reads least, and of these the one with the most room.

        Args:
          streams: of one device.
          hidden_size: H.
          backward: whether it is the gradient's kernel.
          cluster: blocks of a cluster; 0 for the first of `CLUSTERS` that is surely resident.

        Returns:
          None if no plan fits the multiprocessors and their shared memory.
        """
        for size in (cluster,) if cluster else CLUSTERS[backward]:
            most_blocks = NUM_BLOCKS if cluster else resident_blocks(size)
            fitting = [
                plan
                for units, threads, tile in itertools.product(UNITS, THREADS, TILES)
                if units * threads <= MAX_UNITS_TIMES_THREADS
                for groups in [streams // ROWS // threads]
                for cut in [cls(backward, hidden_size, units, threads, groups, size, tile, 0)]
                if cut.divides(streams) and cut.blocks <= most_blocks
                if (plan := cut.with_most_stages()) is not None
            ]
            if fitting:
                return min(fitting, key=lambda plan: (plan.threads, -plan.stages * plan.tile))
        return None

    def divides(self, streams: int) -> bool:
        """Tells whether streams, units and columns are multiples of what they are cut into."""
        return (
            0 < streams == self.chains * ROWS
            and self.hidden_size % 64 == 0
            and self.hidden_size % (self.units * self.cluster) == 0
            and self.depth % self.tile == 0
        )

    def with_most_stages(self) -> "Plan | None":
        """Returns the same cut with as many stages as fit; None if not even two do."""
        bare = self._replace(stages=0)
        ring_stage = bare._replace(stages=1).smem_bytes - bare.smem_bytes
        room = (SMEM_BYTES - bare.smem_bytes) // ring_stage
        stages = min(self.tiles, MAX_BARRIERS // self.threads, room)
        return self._replace(stages=stages) if stages >= min(2, self.tiles) else None

    @property
    def chains(self) -> int:
        """Returns how many chains of 64 streams there are."""
        return self.groups * self.threads

    @property
    def blocks(self) -> int:
        """Returns the number of blocks, which must all be resident at once."""
        return self.groups * self.hidden_size // self.units

    @property
    def depth(self) -> int:
        """Returns what a block's product sums over."""
        return 4 * self.hidden_size // self.cluster if self.backward else self.hidden_size

    @property
    def tiles(self) -> int:
        """Returns the number of tiles of h or dz that a product reads."""
        return self.depth // self.tile

    @property
    def smem_bytes(self) -> int:
        """Returns the bytes of shared memory of a block."""
        weight = 8 * self.units * self.hidden_size
        ring = self.threads * self.stages * ROWS * self.tile * 2
        sums = self.threads * self.cluster * ROWS * self.units * 4 if self.backward else 0
        return weight + ring + sums + 1024  # barriers


class Plans(NamedTuple):
    """The plans of both kernels."""

    forward: Plan
    backward: Plan

    @classmethod
    def find(
        cls, streams: int, hidden_size: int, clusters: tuple[int, int] = (0, 0)
    ) -> "Plans | None":
        """Returns the plans; None if there is none for one of the two. See `choose`."""
        forward, backward = (
            Plan.find(streams, hidden_size, backward=bool(backward), cluster=cluster)
            for backward, cluster in enumerate(clusters)
        )
        return None if forward is None or backward is None else cls(forward, backward)

    @classmethod
    def choose(cls, streams: int, hidden_size: int, clusters: tuple[int, int] = (0, 0)) -> "Plans":
        """Returns the plans of both kernels.

        Args:
          streams: of one device.
          hidden_size: H.
          clusters: blocks of a cluster, forward and backward; 0 for what is surely resident.

        Raises:
          UserError: no plan fits.
        """
        plans = cls.find(streams, hidden_size, clusters)
        if plans is not None:
            return plans
        if cls.find(ROWS, hidden_size, clusters) is None:
            raise UserError(
                "model.recurrence=pallas_gpu keeps the weights of a layer in the shared memory of "
                f"{NUM_BLOCKS} multiprocessors, and cannot cut model.hidden_size={hidden_size}: "
                f"choose a multiple of 64 up to {LARGEST_HIDDEN_SIZE}, or model.recurrence=scan"
            )
        most = max(1, min(streams // ROWS, NUM_BLOCKS * max(THREADS)))
        numbers = (ROWS * chains for chains in range(most, 0, -1))
        fitting = next(number for number in numbers if cls.find(number, hidden_size, clusters))
        raise UserError(
            f"model.recurrence=pallas_gpu takes multiples of {ROWS} streams on each device, and "
            f"cannot cut {streams} with model.hidden_size={hidden_size}: set data.num_streams to "
            f"{fitting} for each device, or model.recurrence=scan"
        )


def resident_blocks(cluster: int) -> int:
    """Returns how many blocks are surely resident at once in clusters of 1 or an even size."""
    return NUM_BLOCKS - NUM_GPCS * max(0, cluster - 2)
