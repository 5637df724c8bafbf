"""Draws bytes with charlstm's decoder."""

from typing import Any

import jax

from benchmarks.competitors import Competitor, versions_of
from charlstm.benchmark.sampling import Sampling
from charlstm.benchmark.shapes import Shape
from charlstm.config import ModelConfig
from charlstm.runtime import meshes


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares sampling; a run draws `count` bytes in each of B texts.

    Args:
      spec: `shape`, whose window_length is not used, and `dtype`; `one_device`, True where a
        process serves several batches, because it cannot change the number of its CPU devices.
    """
    shape = Shape(**spec["shape"])
    mesh = meshes.make_sampling_mesh(1 if spec.get("one_device") else shape.num_streams)
    model = ModelConfig(num_layers=shape.num_layers, hidden_size=shape.hidden_size, forget_bias=1.0)
    sampling = Sampling(model, shape.num_symbols, shape.num_streams, mesh, spec["dtype"])
    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "dtype": spec["dtype"],
    }
    return Competitor(sampling.advance, info)
