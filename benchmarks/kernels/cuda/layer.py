"""The CUDA kernels as a layer with a gradient, called through `jax.ffi`."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.errors import UserError
from charlstm.model.gradients import with_gradient
from charlstm.model.recurrence.scan import before, weight_gradient

# Words for the counters of four sub-batches, the most there are, a cache line each.
COUNTERS = 4 * 32

_library: Any = None


@functools.cache
def register(library: Path) -> None:
    """Registers the handlers of a library that `build` made; to be called before `layer`."""
    global _library
    _library = ctypes.CDLL(str(library))
    for name in ("LstmForward", "LstmBackward"):
        handler = jax.ffi.pycapsule(getattr(_library, name))
        jax.ffi.register_ffi_target(f"charlstm_{name}", handler, platform="CUDA")


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
      clusters: blocks of a cluster, forward and backward; 0 for any that fits the device.

    Returns:
      The outputs [T, B, H] bfloat16, and h and c after the window, float32.

    Raises:
      UserError: no kernel is built for these sizes, or `share` has another dtype.
    """
    streams, hidden_size = h.shape
    if share.dtype != jnp.bfloat16:
        raise UserError(f"the CUDA kernel computes in bfloat16, not {share.dtype}")
    for backward, cluster in enumerate(clusters):
        if not _library.LstmIsBuilt(backward, hidden_size, streams, cluster):
            way = "backward" if backward else "forward"
            with_clusters = f" with clusters of {cluster}" if cluster else ""
            raise UserError(
                f"no {way} CUDA kernel is built for hidden size {hidden_size} and {streams} "
                f"streams{with_clusters}: add it to KERNELS in benchmarks/kernels/cuda/launch.cuh"
            )
    outputs, h, c = _layer(clusters, share, weight_hh, h, c)
    return outputs, h, c


def _forward(
    clusters: tuple[int, int],
    share: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    length, streams, hidden_size = share.shape[0], *h.shape
    state = _shape(streams, hidden_size, dtype=jnp.float32)
    call = jax.ffi.ffi_call(
        "charlstm_LstmForward",
        (
            _shape(length, streams, hidden_size, dtype=jnp.bfloat16),
            state,
            state,
            _shape(length, 3 * streams * hidden_size, dtype=jnp.uint32),
            _shape(COUNTERS, dtype=jnp.uint32),
        ),
    )
    weight = weight_hh.T.astype(jnp.bfloat16)
    outputs, h_last, c_last, factors, _ = call(
        share, weight, h.astype(jnp.bfloat16), c, kx=np.int64(clusters[0])
    )
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    clusters: tuple[int, int],
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, factors = residuals
    d_outputs, dh_last, dc_last = gradients
    length, streams, hidden_size = outputs.shape
    state = _shape(streams, hidden_size, dtype=jnp.float32)
    call = jax.ffi.ffi_call(
        "charlstm_LstmBackward",
        (
            _shape(length, streams, 4 * hidden_size, dtype=jnp.bfloat16),
            state,
            state,
            _shape(COUNTERS, dtype=jnp.uint32),
        ),
    )
    weight = weight_hh.astype(jnp.bfloat16)
    dz, dh, dc, _ = call(d_outputs, weight, dh_last, dc_last, factors, kx=np.int64(clusters[1]))
    return dz, weight_gradient(before(h_first, outputs), dz, weight_hh), dh, dc


_layer = with_gradient(_forward, _backward, num_static=1)


def _shape(*shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
