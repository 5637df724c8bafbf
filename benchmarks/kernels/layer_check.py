"""Compares a layer with charlstm's scan in float32, and measures both, on this machine's device.

  python -m benchmarks.kernels.layer_check --kernel=cuda --sizes=1x1024-B64-T128

The inputs are other ones in every run. Each result is a line, printed at once; the exit code is 1
if the layer is wrong, or if two runs on the same inputs differ.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.kernels import checking, layers
from benchmarks.kernels.layers import LayerFunction
from charlstm.benchmark.shapes import Shape
from charlstm.errors import UserError

_KERNEL = flags.DEFINE_enum("kernel", "cuda", layers.NAMES, "What is checked.")
_SIZES = flags.DEFINE_string("sizes", "1x1024-B64-T128", "Of one layer.")
_CLUSTERS = flags.DEFINE_list(
    "clusters", ["0", "0"], "Blocks of a cluster, forward and backward; 0,0: the kernel's choice."
)
_SEED = flags.DEFINE_integer("seed", None, "Of the inputs; by default the time.")

LIMIT = 1e-2  # of a relative error, |found - wanted| / |wanted| in Euclidean norms
REPEATS, TIMED = 5, 20
RESULTS = ("outputs", "h", "c")
GRADIENTS = ("d_share", "d_weight", "d_h", "d_c")


class Problem(NamedTuple):
    """A layer's arguments, and the gradients with respect to its results."""

    arguments: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
    cotangents: tuple[jax.Array, jax.Array, jax.Array]

    @classmethod
    def random(cls, sizes: Shape, seed: int) -> "Problem":
        """Returns random numbers, with weights that bfloat16 represents."""
        keys = jax.random.split(jax.random.key(seed), 7)
        steps, streams, hidden = sizes.window_length, sizes.num_streams, sizes.hidden_size
        normal = jax.random.normal
        weight = normal(keys[1], (hidden, 4 * hidden), jnp.bfloat16) / hidden**0.5
        return cls(
            (
                normal(keys[0], (steps, streams, 4 * hidden), jnp.bfloat16),
                weight.astype(jnp.bfloat16).astype(jnp.float32),
                jax.random.uniform(keys[2], (streams, hidden), minval=-1.0, maxval=1.0),
                normal(keys[3], (streams, hidden)),
            ),
            (
                normal(keys[4], (steps, streams, hidden), jnp.bfloat16),
                normal(keys[5], (streams, hidden)),
                normal(keys[6], (streams, hidden)),
            ),
        )


def with_gradients(layer: LayerFunction) -> Callable[[Problem], tuple[Any, Any]]:
    """Returns a function that computes a layer's results and the gradients of its arguments."""

    def run(problem: Problem) -> tuple[Any, Any]:
        results, pull = jax.vjp(layer, *problem.arguments)
        kinds = [result.dtype for result in results]
        given = [x.astype(kind) for x, kind in zip(problem.cotangents, kinds, strict=True)]
        return results, pull(tuple(given))

    return run


def relative_error(found: jax.Array, wanted: jax.Array) -> float:
    """Returns |found - wanted| / |wanted|, in Euclidean norms."""
    a, b = (np.asarray(array, np.float64) for array in (found, wanted))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


class LayerCheck:
    """Compares a layer with the scan in float32, and prints lines.

    Args:
      name: begins the lines.
      layer: the layer.
      problem: what it is compared on.
    """

    def __init__(self, name: str, layer: LayerFunction, problem: Problem):
        self.name, self.problem = name, problem
        self.right = True
        self._results = jax.jit(lambda problem: layer(*problem.arguments))
        self._gradients = jax.jit(with_gradients(layer))

    def run(self) -> bool:
        """Checks and measures forward, then both ways, so that one is known if the other hangs."""
        found = self._results(self.problem)
        with jax.default_matmul_precision("highest"):
            wanted, wanted_gradients = jax.jit(with_gradients(layers.exact_scan))(self.problem)
        self._compare(RESULTS, found, wanted, first_step=0)
        self._repeat(self._results, found)
        self._say(f"forward {self._microseconds(self._results):.2f} us/step")
        found = self._gradients(self.problem)
        self._compare(GRADIENTS, found[1], wanted_gradients, first_step=-1)
        self._repeat(self._gradients, found)
        self._say(f"with gradients {self._microseconds(self._gradients):.2f} us/step")
        return self.right

    def _compare(self, names: Sequence[str], found: Any, wanted: Any, first_step: int) -> None:
        """Compares arrays; the first has time steps, of which `first_step` is computed first."""
        errors = [relative_error(*pair) for pair in zip(found, wanted, strict=True)]
        right = all(error < LIMIT for error in errors)
        self.right &= right
        written = (f"{name} {error:.1e}" for name, error in zip(names, errors, strict=True))
        self._say("right:" if right else "WRONG:", *written)
        if not right:
            order = range(min(4, len(found[0])))
            places = order if first_step == 0 else [-1 - step for step in order]
            by_step = (f"{relative_error(found[0][t], wanted[0][t]):.1e}" for t in places)
            self._say(f"{names[0]} by time step, as they are computed:", *by_step)

    def _repeat(self, run: Callable[[Problem], Any], first: Any) -> None:
        """Compares more runs with the first, bit for bit."""
        equal = 0
        for _ in range(REPEATS):
            pairs = zip(jax.tree.leaves(run(self.problem)), jax.tree.leaves(first), strict=True)
            equal += all(bool(jnp.array_equal(a, b)) for a, b in pairs)
        self.right &= equal == REPEATS
        self._say(f"{equal} of {REPEATS} repeats are bit-equal")

    def _microseconds(self, run: Callable[[Problem], Any]) -> float:
        """Returns the time of a time step, the median over runs."""
        seconds = []
        for _ in range(TIMED):
            begin = time.perf_counter()
            jax.block_until_ready(run(self.problem))
            seconds.append(time.perf_counter() - begin)
        return 1e6 * statistics.median(seconds) / len(self.problem.arguments[0])

    def _say(self, *words: str) -> None:
        print(self.name, *words, flush=True)


def choice() -> tuple[str, Shape, tuple[int, int]]:
    """Returns the kernel, the sizes and the clusters that the flags ask for.

    Raises:
      UserError: they are no sizes, or not two clusters.
    """
    try:
        sizes = Shape.parse(_SIZES.value)
    except ValueError as error:
        raise UserError(f"--sizes: {error}") from None
    if len(_CLUSTERS.value) != 2 or not all(size.isdecimal() for size in _CLUSTERS.value):
        raise UserError(f"--clusters={','.join(_CLUSTERS.value)} must be two numbers such as 2,8")
    return _KERNEL.value, sizes, (int(_CLUSTERS.value[0]), int(_CLUSTERS.value[1]))


def main(argv: Sequence[str]) -> None:
    """Checks the kernel, then charlstm's scan in bfloat16."""
    del argv
    with checking.one_line(), checking.build_folder() as build:
        kernel, sizes, clusters = choice()
        layer = layers.load(kernel, build, clusters)
        seed = int(time.time()) % 2**31 if _SEED.value is None else _SEED.value
        print(f"{sizes}, seed {seed}, {jax.devices()[0].device_kind}", flush=True)
        problem = Problem.random(sizes, seed)
        right = LayerCheck(f"{kernel} {sizes}", layer, problem).run()
        if kernel != "scan":
            LayerCheck(f"scan {sizes}", layers.scan, problem).run()
    sys.exit(not right)


if __name__ == "__main__":
    app.run(main)
