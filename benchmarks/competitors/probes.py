"""Measures what the machine can do: the rate of large products, and of copying memory.

The probes run interleaved with the competitors, so that shares refer to rates in the same minutes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.competitors import Competitor, num_cores, versions_of
from charlstm.benchmark import products
from charlstm.benchmark.products import Make, Products

CPU_COPY_BYTES, GPU_COPY_BYTES = 2**28, 2**32


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares a probe; a run measures over `count` repetitions.

    Args:
      spec: `probe` (product, copy); for products `library` (jax, torch) and `dtype`; `tiny` for a
        rehearsal.
    """
    if spec["probe"] == "copy":
        return _copies(tiny=bool(spec.get("tiny")))
    return _products(spec["library"], spec["dtype"], tiny=bool(spec.get("tiny")))


def _products(library: str, dtype: str, tiny: bool) -> Competitor:
    """Prepares products; a run's figure is the FLOP/s of the best shape."""
    on_cpu, make, device = (_jax if library == "jax" else _torch)(dtype)
    usual = products.CPU_SIZES if on_cpu else products.ACCELERATOR_SIZES
    measured = Products(make, ((64, 64, 64),) if tiny else usual)

    def run(count: int) -> dict[str, float]:
        return {"flops_per_second": measured.rate(count)}

    return Competitor(run, {"versions": versions_of(library), "device": device, "dtype": dtype})


def _jax(dtype: str) -> tuple[bool, Make, str]:
    import jax

    return jax.default_backend() == "cpu", products.with_jax(dtype), jax.devices()[0].device_kind


def _torch(dtype: str) -> tuple[bool, Make, str]:
    import torch

    torch.set_num_threads(num_cores())
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"

    def make(m: int, k: int, n: int) -> Callable[[], Any]:
        kind = getattr(torch, dtype)
        left = torch.randn(m, k, device=device).to(kind)
        right = torch.randn(k, n, device=device).to(kind)
        result = torch.empty(m, n, device=device, dtype=kind)

        def run() -> None:
            torch.mm(left, right, out=result)
            if on_gpu:
                torch.cuda.synchronize()

        return run

    return not on_gpu, make, torch.cuda.get_device_name() if on_gpu else "cpu"


def _copies(tiny: bool) -> Competitor:
    """Prepares copies; a run's figure is the bytes read and written per second.

    On a CPU, NumPy copies with one thread per core. On a GPU, JAX adds one to every element.
    """
    import jax
    import jax.numpy as jnp

    on_gpu = jax.default_backend() == "gpu"
    num_bytes = 2**16 if tiny else GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES
    if on_gpu:
        source = jnp.zeros(num_bytes // 4, jnp.float32)
        add = jax.jit(lambda x: x + 1)

        def copy() -> None:
            add(source).block_until_ready()
    else:
        parts = np.array_split(np.zeros(num_bytes, np.uint8), num_cores())
        copies = np.array_split(np.ones(num_bytes, np.uint8), num_cores())
        threads = ThreadPoolExecutor(num_cores())

        def copy() -> None:
            list(threads.map(np.copyto, copies, parts))

    copy()

    def run(count: int) -> dict[str, float]:
        return {"bytes_per_second": 2 * num_bytes / products.mean_seconds(copy, count)}

    device = jax.devices()[0].device_kind
    return Competitor(run, {"versions": versions_of("jax", "numpy"), "device": device})
