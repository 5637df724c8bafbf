"""The signature that all recurrences have, and the base of those that run layer by layer."""

from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from charlstm.errors import UserError
from charlstm.model.cell import Cell, Layer
from charlstm.model.compute import Compute
from charlstm.model.stack import Carry, Connections, State, restack, unstack, walk
from charlstm.runtime.targets import Platform


class Structure(Protocol):
    """The part of a network that a recurrence needs to know; see `network.Network`."""

    @property
    def cell(self) -> Cell:
        """The kind of layer."""
        ...

    @property
    def connections(self) -> Connections:
        """Past layers."""
        ...

    @property
    def compute(self) -> Compute:
        """The dtype of products, and the target."""
        ...


class OnChip(NamedTuple):
    """Describes how a kernel of a recurrence's own uses a chip.

    Attributes:
      time_steps, streams: of a block of the window.
      memory_bytes, memory_limit: of the memory beside the cores (a TPU's VMEM, the shared memory of
        a GPU's block), what it needs and may take.
    """

    time_steps: int
    streams: int
    memory_bytes: int
    memory_limit: int


class Recurrence:
    """Runs a window through the stack; a frozen value that is equal if it computes the same.

    Attributes:
      name: in messages and records.
      takes_any_cell: False if it computes the plain LSTM whatever the network's cell.
      takes_connections: False if it runs several layers at once.
      platform: the only one that it runs on, if there is one.
      notice: what a run that chose it should know, in one line; empty if nothing.
    """

    name: ClassVar[str] = ""
    takes_any_cell: ClassVar[bool] = False
    takes_connections: ClassVar[bool] = True
    platform: ClassVar[Platform | None] = None
    notice: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.name

    def require(self, compute: Compute, hidden_size: int) -> None:
        """Raises `UserError` if the target cannot run layers of this hidden size."""
        if self.platform not in (None, compute.target.platform):
            device = {"cuda": "an NVIDIA GPU", "tpu": "a TPU"}[self.platform]
            raise UserError(
                f"model.recurrence={self.name} needs {device}, and jax runs on "
                f"{compute.target.chip}: set model.recurrence=scan"
            )

    def require_streams(self, streams: int, hidden_size: int) -> None:
        """Raises `UserError` if it cannot train so many streams of one device side by side."""
        del streams, hidden_size

    def for_evaluation(self) -> "Recurrence":
        """Returns what evaluates a model: itself if it takes any number of streams and dtype."""
        return self

    def on_chip(
        self, compute: Compute, window: int, streams: int, hidden_size: int
    ) -> OnChip | None:
        """Returns how its own kernel uses a chip; None if XLA makes all of its kernels.

        Args:
          compute: the dtype of products, and the target.
          window: T.
          streams: B of one device.
          hidden_size: H.

        Raises:
          UserError: see `require`.
        """
        del compute, window, streams, hidden_size
        return None

    def __call__(
        self,
        network: Structure,
        layers: list[Layer],
        inputs: jax.Array,
        carry: Carry,
        masks: jax.Array | None,
    ) -> tuple[jax.Array, Carry]:
        """Runs a window through the stack.

        Args:
          network: the cell, the connections, and the compute dtype and target.
          layers: from the bottom up, `weight_ih` [F, 4H] in the first and [H, 4H] in the others,
            `weight_hh` [H, 4H], `bias` [4H] and the cell's vectors; float32.
          inputs: the first layer's, [T, B, F] in the compute dtype; or [T, B], integers below F,
            which stand for one-hot vectors and look up rows of `weight_ih`.
          carry: the state before the window.
          masks: [L-1, T, B, H] or [L-1, 1, B, H] in the compute dtype, factors on what layer l
            passes to layer l+1 (0 where dropped, 1/(1-dropout) elsewhere); None drops nothing.

        Returns:
          What the head reads, [T, B, H] in the compute dtype, and the carry after the window.
        """
        raise NotImplementedError


class LayerByLayer(Recurrence):
    """Runs one layer after the other, each over the whole window."""

    def __call__(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """See `Recurrence`."""

        def run_layer(index: int, inputs: jax.Array, state: State) -> tuple[jax.Array, State]:
            return self.run_layer(network, layers[index], inputs, state)

        outputs, after = walk(run_layer, inputs, unstack(carry), masks, network.connections)
        return outputs, restack(after)

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """Runs a window through one layer.

        Args:
          network: see `Recurrence`.
          layer: its parameters, float32.
          inputs: its inputs, as the stack's.
          state: h and c before the window, [B, H] float32.

        Returns:
          Its outputs, [T, B, H] in the compute dtype, and h and c after the window.
        """
        raise NotImplementedError
