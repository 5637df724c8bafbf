"""charlstm's decoder, drawing bytes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workloads
from benchmarks.contestants import Contestant, versions_of
from charlstm import distributed
from charlstm.model import language_model
from charlstm.sampling.decode import Decoder, Settings


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn draws `count` bytes in each of B texts, from a prompt of one byte on.

    Args:
      spec: `shape`, whose window_length is not used, and `dtype`.
    """
    shape = workloads.Shape(**spec["shape"])
    mesh = distributed.make_sampling_mesh(shape.num_streams)
    jax.set_mesh(mesh)
    params = language_model.init_params(
        jax.random.key(0),
        alphabet_size=shape.num_symbols,
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        forget_bias=1.0,
    )
    settings = Settings(temperature=workloads.TEMPERATURE)
    params = jax.device_put(params, distributed.replicated(mesh))
    dtype = jnp.dtype(spec["dtype"])
    decoder = Decoder(shape.num_streams, settings, dtype, distributed.DATA_AXIS)
    model = decoder.load(params)
    prompt = np.array([10], np.uint8)

    def turn(count: int) -> dict[str, float]:
        drawn = sum(piece.shape[1] for piece in decoder(model, prompt, count, 0))
        assert drawn == count
        return {}

    turn(1)
    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "dtype": spec["dtype"],
    }
    return Contestant(turn, info)
