"""The language model over symbols: parameters, alphabet and network in one object."""

import dataclasses
import functools
from typing import Any, Self

import jax

from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.model import decode_step, parameters
from charlstm.model.decode_step import DecodeState, DecodeWeights
from charlstm.model.network import Network
from charlstm.model.parameters import Params
from charlstm.model.recurrence import Recurrence
from charlstm.model.stack import Carry
from charlstm.runtime.targets import Target


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["alphabet", "network", "reset_every"],
)
@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A language model over symbols. It is a pytree: jitted functions take it as an argument.

    Attributes:
      params: float32, see `parameters`.
      alphabet: the table of bytes to symbols and back; V symbols.
      network: how the parameters are computed with.
      reset_every: bytes after which the state is zero again, as in training; 0 for never.
    """

    params: Params
    alphabet: Alphabet
    network: Network
    reset_every: int = 0

    @classmethod
    def of(
        cls,
        config: Config,
        alphabet: Alphabet,
        params: Params,
        target: Target,
        *,
        model_devices: int = 1,
    ) -> Self:
        """Returns the model that a configuration describes, with these parameters.

        Args:
          config: the experiment.
          alphabet: of the model.
          params: float32.
          target: what it is compiled for.
          model_devices: that share each layer.
        """
        network = Network.of(config.model, target, model_devices=model_devices)
        network = network.replace(recurrence=network.recurrence.for_evaluation())
        return cls(params, alphabet, network, config.data.reset_every)

    @classmethod
    def initialize(
        cls, config: Config, alphabet: Alphabet, target: Target, seed: int | None = None
    ) -> Self:
        """Returns the untrained model of a configuration.

        Args:
          config: the experiment.
          alphabet: of the model.
          target: what it is compiled for.
          seed: of the initial values; None takes `training.seed`, which gives the very values that
            a training run starts from.
        """
        key = jax.random.key(config.training.seed if seed is None else seed)
        params = parameters.init_params(jax.random.split(key)[0], config.model, alphabet.size)
        return cls.of(config, alphabet, params, target)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of layers L and the hidden size H."""
        return parameters.stack_shape(self.params)

    @property
    def num_parameters(self) -> int:
        """The number of parameters."""
        return parameters.num_parameters(self.params)

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other attributes."""
        return dataclasses.replace(self, **changes)

    def in_dtype(self, dtype: Any) -> Self:
        """Returns the same model with products in another dtype."""
        return self.replace(network=self.network.in_dtype(dtype))

    def with_recurrence(self, recurrence: Recurrence) -> Self:
        """Returns the same model with another time loop."""
        return self.replace(network=self.network.replace(recurrence=recurrence))

    def put(self, sharding: jax.sharding.Sharding) -> Self:
        """Returns the same model with its parameters laid out by `sharding`."""
        return self.replace(params=jax.device_put(self.params, sharding))

    def zero_carry(self, num_streams: int, axis: str | None = None) -> Carry:
        """Returns the state before the first byte of B texts; see `parameters.zero_carry`."""
        return parameters.zero_carry(self.params, num_streams, axis)

    def apply(self, carry: Carry, symbols: jax.Array) -> tuple[jax.Array, Carry]:
        """Reads symbols [T, B]: logits [T, B, V] float32 of the next ones, and the carry after."""
        return self.network.apply(self.params, carry, symbols)

    def decode_weights(self) -> DecodeWeights:
        """Lays the parameters out for `decode_step`; to be called under `jax.jit`."""
        return decode_step.decode_weights(self.network, self.params)

    def decode_step(
        self, weights: DecodeWeights, state: DecodeState, symbols: jax.Array
    ) -> tuple[jax.Array, DecodeState]:
        """Makes one time step of B texts; see `decode_step.decode_step`."""
        return decode_step.decode_step(self.network, weights, state, symbols)
