"""Finds what can be checked and measured as a layer: the kernels, and charlstm's own scan.

All have the signature of `scan_layer` for the plain LSTM in bfloat16, with a gradient.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from charlstm.model.cell import Lstm
from charlstm.model.compute import Compute
from charlstm.model.recurrence import pallas_gpu
from charlstm.model.recurrence.scan import scan_layer
from charlstm.runtime.targets import Target

# (share [T, B, 4H] bfloat16, weight_hh [H, 4H], h [B, H], c [B, H] float32) → (the outputs
# [T, B, H] bfloat16, h and c after the window, float32)
LayerFunction = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]
]

NAMES = ("cuda", "mosaic", "scan")


def load(name: str, build: Path, clusters: tuple[int, int] = (0, 0)) -> LayerFunction:
    """Returns a layer that is ready to be traced.

    Args:
      name: of `NAMES`.
      build: the folder of what is built; a library that is missing is built into it.
      clusters: blocks of a cluster, forward and backward; 0 for the kernel's own choice.

    Raises:
      UserError: it cannot be built, or needs another version of JAX.
    """
    if name == "scan":
        return scan
    if name == "cuda":
        from benchmarks.kernels.cuda import build as cuda_build
        from benchmarks.kernels.cuda import layer as cuda

        cuda_build.build(build, [cuda_build.LIBRARY])
        cuda.register(build / cuda_build.LIBRARY)
        return functools.partial(cuda.layer, clusters=clusters)
    pallas_gpu.require_version()
    return functools.partial(pallas_gpu.pallas_gpu_layer, clusters)


def scan(
    share: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs charlstm's scan on this machine's device, in the dtype of `share`."""
    compute = Compute(share.dtype, Target.of_this_machine())
    return scan_layer(Lstm(), compute, share, weight_hh, (), h, c)


def exact_scan(
    share: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs the scan in float32, whatever the dtype of `share`, for comparison."""
    # The target of a CPU has a loop that is not unrolled, which compiles sooner.
    compute = Compute(jnp.dtype("float32"), Target("cpu", "any"))
    return scan_layer(Lstm(), compute, share.astype(jnp.float32), weight_hh, (), h, c)
