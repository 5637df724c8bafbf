"""Draws bytes from an untrained model with the decoder of `charlstm sample`."""

import jax
import numpy as np

from charlstm.benchmark.shapes import TEMPERATURE
from charlstm.config import ModelConfig
from charlstm.data.corpus import Alphabet
from charlstm.model import parameters
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.sampling import texts
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings


class Sampling:
    """Draws bytes in several texts side by side, each from a prompt of one byte on.

    Args:
      model: what is drawn from.
      num_symbols: V; the alphabet is the first V bytes.
      num_texts: B.
      mesh: the devices, with the axis `data`.
      dtype: of the products; None takes the model's `compute_dtype`.
    """

    def __init__(
        self,
        model: ModelConfig,
        num_symbols: int,
        num_texts: int,
        mesh: jax.sharding.Mesh,
        dtype: str | None = None,
    ):
        self._mesh = mesh
        self._prompt = np.array([min(10, num_symbols - 1)], np.uint8)
        alphabet = Alphabet("corpus", bytes(range(num_symbols)))
        settings = Settings(temperature=TEMPERATURE)
        self._decoder = Decoder(num_texts, settings, meshes.DATA_AXIS)
        with jax.set_mesh(mesh):
            params = parameters.init_params(jax.random.key(0), model, num_symbols)
            network = Network.of(model, Target.of_mesh(mesh))
            if dtype is not None:
                network = network.in_dtype(dtype)
            untrained = LanguageModel(params, alphabet, network)
            self._loaded = texts.load(untrained.put(meshes.replicated(mesh)))
        self.advance(1)

    def advance(self, count: int) -> None:
        """Draws `count` bytes in each text, up to the last one."""
        with jax.set_mesh(self._mesh):
            pieces = self._decoder(self._loaded, self._prompt, count, 0)
            drawn = sum(piece.shape[1] for piece in pieces)
        assert drawn == count
