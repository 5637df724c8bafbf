"""Measures the rate of large matrix products; training's rate is shown as a share of it.

JAX is loaded only by what multiplies with it: peers multiply with libraries of their own.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

# [M, K]·[K, N], among them the products of the largest layer.
Size = tuple[int, int, int]
CPU_SIZES: Sequence[Size] = (
    (2048, 1024, 4096),
    (2048, 4096, 1024),
    (2048, 2048, 2048),
    (4096, 1024, 4096),
)
ACCELERATOR_SIZES: Sequence[Size] = (
    (8192, 8192, 8192),
    (16384, 1024, 4096),
    (16384, 4096, 4096),
    (65536, 1024, 4096),
)

# Of M, K and N, returns what makes one product and waits for it.
Make = Callable[[int, int, int], Callable[[], Any]]


class Products:
    """Multiplies matrices of several sizes, which are compiled here.

    Args:
      make: makes what is repeated.
      sizes: to be tried.
    """

    def __init__(self, make: Make, sizes: Sequence[Size]):
        self._products = [(2.0 * m * k * n, make(m, k, n)) for m, k, n in sizes]
        for _, product in self._products:
            product()

    def rate(self, count: int) -> float:
        """Returns the FLOP/s of the best size, averaged over `count` products of each.

        It is what can be sustained, not what one lucky moment gave.
        """
        return max(flops / mean_seconds(product, count) for flops, product in self._products)


def with_jax(dtype: str) -> Make:
    """Returns what multiplies with JAX on the default device, with sums in float32."""
    import jax
    import jax.numpy as jnp

    def make(m: int, k: int, n: int) -> Callable[[], Any]:
        left = jax.random.normal(jax.random.key(0), (m, k), jnp.dtype(dtype))
        right = jax.random.normal(jax.random.key(1), (k, n), jnp.dtype(dtype))
        multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
        product = multiply.lower(left, right).compile()
        return lambda: product(left, right).block_until_ready()

    return make


def mean_seconds(run: Callable[[], Any], count: int) -> float:
    """Returns the seconds that a run takes, averaged over `count` of them."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count
