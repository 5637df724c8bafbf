"""The network: pure functions of its parameters, and everything that says how it computes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.config import ModelConfig
from charlstm.model import recurrence
from charlstm.model.cell import Cell, Lstm, cell_for
from charlstm.model.compute import Compute
from charlstm.model.dropout import Dropped
from charlstm.model.look_up import look_up
from charlstm.model.parameters import Params, layers_of
from charlstm.model.projection import head
from charlstm.model.recurrence import Recurrence
from charlstm.model.stack import Carry, Connections
from charlstm.runtime.targets import Target


@dataclasses.dataclass(frozen=True)
class Network:
    """The structure of a network, without parameters; equal if the computation is the same.

    Attributes:
      cell: what a layer does in a time step.
      connections: past layers.
      recurrence: the time loop of a window.
      compute: the dtype of products, and the target.

    Raises:
      ValueError: the recurrence does not compute this cell, or has no such connections.
    """

    cell: Cell
    connections: Connections
    recurrence: Recurrence
    compute: Compute

    def __post_init__(self) -> None:
        if type(self.cell) is not Lstm and not self.recurrence.takes_any_cell:
            raise ValueError(f"{self.recurrence} computes the plain LSTM, not {self.cell}")
        if self.connections != "plain" and not self.recurrence.takes_connections:
            raise ValueError(f"{self.recurrence} has no {self.connections} connections")

    @classmethod
    def of(
        cls, model: ModelConfig, target: Target, *, num_streams: int = 1, model_devices: int = 1
    ) -> "Network":
        """Returns the network of a configuration, for a target.

        Args:
          model: the configuration.
          target: what it is compiled for.
          num_streams: that run side by side in training; `model.recurrence=auto` depends on it.
          model_devices: that share each layer, `mesh.model`.

        Raises:
          UserError: the target has no such recurrence.
        """
        chosen = recurrence.choose(
            model, target, num_streams=num_streams, model_devices=model_devices
        )
        compute = Compute.of(model, target)
        chosen.require(compute, model.hidden_size)
        return cls(cell_for(model.layer_norm), model.connections, chosen, compute)

    def replace(self, **changes: Any) -> "Network":
        """Returns a copy with other attributes."""
        return dataclasses.replace(self, **changes)

    def in_dtype(self, dtype: Any) -> "Network":
        """Returns the same network with products in another dtype."""
        compute = dataclasses.replace(self.compute, dtype=jnp.dtype(dtype))
        return dataclasses.replace(self, compute=compute)

    def describe(self) -> str:
        """Returns the recurrence, the cell and the connections in a few words."""
        words = [str(self.recurrence)]
        if self.cell.name:
            words.append(self.cell.name)
        if self.connections != "plain":
            words.append(f"{self.connections} connections")
        return ", ".join(words)

    def apply(self, params: Params, carry: Carry, symbols: jax.Array) -> tuple[jax.Array, Carry]:
        """Runs a window through the network, nothing dropped.

        Args:
          params: float32.
          carry: the state before the window.
          symbols: [T, B] uint8 or int32, below V.

        Returns:
          The logits of the next symbol at every place, [T, B, V] float32, and the carry after.
        """
        outputs, carry = self.outputs(params, carry, symbols)
        return self.logits(params, outputs), carry

    def outputs(
        self, params: Params, carry: Carry, symbols: jax.Array, dropped: Dropped | None = None
    ) -> tuple[jax.Array, Carry]:
        """Runs a window through the stack.

        Args:
          params, carry, symbols: see `apply`.
          dropped: what is dropped within the stack; None for nothing.

        Returns:
          What the head reads, [T, B, H] in the compute dtype, and the carry after.
        """
        if dropped is None:
            return self.recurrence(self, layers_of(params), symbols, carry, None)
        dtype = self.compute.dtype
        if "embedding" in params and dropped.input is not None:
            # No table stands for an embedding that differs from stream to stream.
            layers = layers_of({"layers": params["layers"]})
            table = params["embedding"].astype(dtype)
            vectors = look_up(self.compute.target, table, symbols)
            inputs = vectors * dropped.input.astype(dtype)
        else:
            layers, inputs = dropped.one_hot(layers_of(params), symbols)
        masks = None if dropped.between is None else dropped.between.astype(dtype)
        return self.recurrence(self, dropped.recurrent(layers), inputs, carry, masks)

    def logits(self, params: Params, outputs: jax.Array) -> jax.Array:
        """Applies the head: logits [T, B, V] float32 of outputs [T, B, H] in the compute dtype."""
        kernel, bias = params["head"]["kernel"], params["head"]["bias"]
        if outputs.dtype != jnp.float32:
            return head(outputs, kernel, bias)
        # In float32 automatic differentiation makes the same products.
        product = jnp.einsum("tbh,hv->tbv", outputs, kernel, preferred_element_type=jnp.float32)
        return product + bias


def next_symbol_nats(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns how surprising each next symbol was.

    Args:
      logits: [T, B, V] float32.
      targets: [T, B], the symbols that came.

    Returns:
      Negative log-likelihoods [T, B] in nats, float32, and whether the likeliest symbol was
      the one that came [T, B], bool.
    """
    is_target = targets[..., None].astype(jnp.int32) == jnp.arange(logits.shape[-1])
    target_logits = jnp.sum(logits, axis=-1, where=is_target)
    nats = jax.nn.logsumexp(logits, axis=-1) - target_logits
    return nats, target_logits >= jnp.max(logits, axis=-1)
