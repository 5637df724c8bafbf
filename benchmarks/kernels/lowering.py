"""Compiles a layer with its gradient for an H100 that is not there, by JAX and NVIDIA's ptxas.

  JAX_PLATFORMS=cpu python -m benchmarks.kernels.lowering --kernel=mosaic --sizes=1x1024-B64-T128

Needs `pip install 'charlstm[compile-gpu]'` and no GPU. Prints the kernels that the compiled program
calls.
"""

import re
from collections.abc import Sequence

import jax
from absl import app

from benchmarks.kernels import checking, layer_check, layers
from charlstm.benchmark.shapes import Shape
from charlstm.compilation.topologies import Topology


def compiled_text(layer: layers.LayerFunction, sizes: Shape) -> str:
    """Returns the program that a layer with its gradient compiles to.

    Raises:
      UserError: the compiler is not installed.
    """
    (device,) = Topology.parse("h100:1").devices()
    sharding = jax.sharding.SingleDeviceSharding(device)
    problem = jax.eval_shape(lambda: layer_check.Problem.random(sizes, 0))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), problem
    )
    compiled = jax.jit(layer_check.with_gradients(layer)).lower(shapes).compile()
    return compiled.as_text() or ""


def main(argv: Sequence[str]) -> None:
    """Compiles, and prints the kernels that the program calls."""
    del argv
    with checking.one_line(), checking.build_folder() as build:
        kernel, sizes, clusters = layer_check.choice()
        text = compiled_text(layers.load(kernel, build, clusters), sizes)
    calls = re.findall(r'custom_call_target="([^"]*)"', text)
    print(f"{kernel} {sizes} is compiled; it calls {', '.join(calls) or 'no kernel'}")


if __name__ == "__main__":
    app.run(main)
