"""Draws bytes with charlstm's decoder."""

from typing import Any

import jax
import numpy as np

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.config import ModelConfig
from charlstm.data.corpus import Alphabet
from charlstm.model import parameters
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.sampling import decode


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares sampling; a run draws `count` bytes in each of B texts.

    Each text starts from a prompt of one byte.

    Args:
      spec: `shape`, whose window_length is not used, and `dtype`; `one_device`, True where a
        process serves several batches, because it cannot change the number of its CPU devices.
    """
    shape = workloads.Shape(**spec["shape"])
    mesh = meshes.make_sampling_mesh(1 if spec.get("one_device") else shape.num_streams)
    jax.set_mesh(mesh)
    model = _model(shape, Target.of_mesh(mesh)).in_dtype(spec["dtype"])
    settings = decode.Settings(temperature=workloads.TEMPERATURE)
    decoder = decode.Decoder(shape.num_streams, settings, meshes.DATA_AXIS)
    loaded = decode.load(model.put(meshes.replicated(mesh)))
    prompt = np.array([10], np.uint8)

    def run(count: int) -> dict[str, float]:
        drawn = sum(piece.shape[1] for piece in decoder(loaded, prompt, count, 0))
        assert drawn == count
        return {}

    run(1)
    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": f"{mesh.size} × {jax.devices()[0].device_kind}",
        "dtype": spec["dtype"],
    }
    return Competitor(run, info)


def _model(shape: workloads.Shape, target: Target) -> LanguageModel:
    """Returns an untrained model of a shape, whose alphabet is the first V bytes."""
    model = ModelConfig(num_layers=shape.num_layers, hidden_size=shape.hidden_size, forget_bias=1.0)
    params = parameters.init_params(jax.random.key(0), model, shape.num_symbols)
    alphabet = Alphabet("corpus", bytes(range(shape.num_symbols)))
    return LanguageModel(params, alphabet, Network.of(model, target))
