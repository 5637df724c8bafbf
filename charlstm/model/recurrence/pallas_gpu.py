"""The LSTM stack layer by layer, each layer one persistent kernel of a Hopper GPU.

A scan starts several kernels in every time step and reads `weight_hh` from memory each time. Here
every multiprocessor runs one block, which walks through the window and owns a few units: their
columns of `weight_hh` stay in shared memory, their cell states in registers. What all blocks need
of one another in every time step, h (or dz on the way back), goes through global memory, where a
counter tells how many blocks have written theirs.

Streams are cut into chains of 64, the rows of one matrix instruction. A chain is a recurrence of
its own, with its own counter, and is run by one warpgroup of every block: while one chain waits for
the other blocks, another computes.

Forward, the blocks of a cluster read the same h, and the copy engine brings it to all of them at
once. Backward, dh of a unit is a product over 4H. The blocks of a cluster share it: each multiplies
a part of the 4H for the units of all, and they add up the sums through each other's shared memory.
The gradient of `weight_hh` is one product after the kernel, as in scan.

`pallas_gpu_plan` says why no block waits for one that has no multiprocessor. The kernels are
written for the Pallas Mosaic GPU of jax 0.11 and 0.12, and imported when a layer is traced.
"""

import dataclasses
import functools
import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from charlstm.errors import UserError
from charlstm.model.cell import Layer
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.base import LayerByLayer, OnChip, Recurrence, Structure
from charlstm.model.recurrence.pallas_gpu_plan import NUM_BLOCKS, ROWS, SMEM_BYTES, Plans
from charlstm.model.recurrence.scan import Scan, before, weight_gradient
from charlstm.model.stack import State
from charlstm.runtime.shardings import dimension
from charlstm.runtime.targets import Platform

OLDEST_JAX = 0, 11
# Chips with `NUM_BLOCKS` multiprocessors. The H100 of a PCIe card has fewer, and so has a part of a
# chip (MIG).
_CHIPS = re.compile(r"(?!.*\b(PCIe|MIG)\b).*\b(H100|H200|GH200)\b")


@dataclasses.dataclass(frozen=True)
class PallasGpu(LayerByLayer):
    """Runs each layer as one kernel of a Hopper GPU.

    Attributes:
      clusters: blocks of a cluster, forward and backward; 0 for what is resident on every such
        chip. Of others the caller must know from the GPU that 132 blocks are resident at once, or
        the kernels may wait for ever.
    """

    name: ClassVar[str] = "pallas_gpu"
    platform: ClassVar[Platform | None] = "cuda"
    notice: ClassVar[str] = (
        "model.recurrence=pallas_gpu has not yet been shown to be right or fast on a GPU: compare "
        "its losses and its speed with those of model.recurrence=scan"
    )
    clusters: tuple[int, int] = (0, 0)

    def require(self, compute: Compute, hidden_size: int) -> None:
        """See `Recurrence`."""
        super().require(compute, hidden_size)
        if not _CHIPS.match(compute.target.chip):
            raise UserError(
                f"model.recurrence=pallas_gpu needs the {NUM_BLOCKS} multiprocessors of an H100 "
                f"(SXM or NVL), H200 or GH200, and jax runs on {compute.target.chip}: set "
                "model.recurrence=scan"
            )
        require_version()
        _require_bfloat16(compute.dtype)
        self.require_streams(ROWS, hidden_size)

    def require_streams(self, streams: int, hidden_size: int) -> None:
        """See `Recurrence`."""
        Plans.choose(streams, hidden_size, self.clusters)

    def on_chip(
        self, compute: Compute, window: int, streams: int, hidden_size: int
    ) -> OnChip | None:
        """See `Recurrence`."""
        plans = Plans.choose(streams, hidden_size, self.clusters)
        largest = max(plans, key=lambda plan: plan.smem_bytes)
        return OnChip(window, ROWS * largest.threads, largest.smem_bytes, SMEM_BYTES)

    def for_evaluation(self) -> Recurrence:
        """See `Recurrence`."""
        return Scan()

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """See `LayerByLayer`."""
        share = network.cell.project(network.compute, inputs, layer)
        run = functools.partial(pallas_gpu_layer, self.clusters)
        if not jax.sharding.get_abstract_mesh().empty:
            # XLA cannot split a kernel over devices by itself.
            axis = dimension(state[0], 0)
            window, states = jax.P(None, axis, None), jax.P(axis, None)
            run = jax.shard_map(
                run,
                in_specs=(window, jax.P(None, None), states, states),
                out_specs=(window, states, states),
                check_vma=False,
            )
        outputs, h, c = run(share, layer["weight_hh"], *state)
        return outputs, (h, c)


def require_version() -> None:
    """Raises UserError if JAX is older than what the kernels are written for."""
    if jax.__version_info__ < OLDEST_JAX:
        oldest = ".".join(map(str, OLDEST_JAX))
        raise UserError(
            f"model.recurrence=pallas_gpu needs jax {oldest} or newer, and this is "
            f"{jax.__version__}: pip install 'jax[cuda13]>={oldest}', or set "
            "model.recurrence=scan"
        )


def _require_bfloat16(dtype: Any) -> None:
    if dtype != jnp.bfloat16:
        raise UserError(
            f"model.recurrence=pallas_gpu computes in bfloat16, not {dtype.name}: set "
            "model.compute_dtype=bfloat16, or model.recurrence=scan"
        )


def _forward(
    clusters: tuple[int, int],
    share: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    """Runs a window through one layer; see `scan.scan_layer` for the arrays.

    Args:
      clusters: see `PallasGpu`.
      share: bfloat16.
      weight_hh, h, c: float32.

    Raises:
      UserError: the sizes do not fit, or `share` has another dtype.
    """
    _require_bfloat16(share.dtype)
    from charlstm.model.recurrence.pallas_gpu_forward import forward_window

    streams, hidden_size = h.shape
    plan = Plans.choose(streams, hidden_size, clusters).forward
    outputs, h_last, c_last, factors = forward_window(plan, share, weight_hh, h, c)
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    clusters: tuple[int, int],
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    from charlstm.model.recurrence.pallas_gpu_backward import backward_window

    weight_hh, h_first, outputs, factors = residuals
    streams, hidden_size = h_first.shape
    plan = Plans.choose(streams, hidden_size, clusters).backward
    dz, dh, dc = backward_window(plan, weight_hh, factors, *gradients)
    return dz, weight_gradient(before(h_first, outputs), dz, weight_hh), dh, dc


pallas_gpu_layer = with_gradient(_forward, _backward, num_static=1)
