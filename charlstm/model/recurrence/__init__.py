"""The time loop of a stack of LSTM layers, in several implementations of one signature.

Every implementation is a `Recurrence`; `get` finds one by its name in the configuration.
"""

from functools import partial
from typing import Any, Protocol, TypedDict

import jax

from charlstm.model.recurrence.connected import connected_stack
from charlstm.model.recurrence.cudnn import cudnn_stack
from charlstm.model.recurrence.layer_norm import layer_norm_stack
from charlstm.model.recurrence.pallas_tpu import pallas_tpu_stack
from charlstm.model.recurrence.scan import scan_stack
from charlstm.model.recurrence.scan_columns import scan_columns_stack
from charlstm.model.recurrence.scan_recompute import scan_recompute_stack
from charlstm.model.recurrence.split import split_stack
from charlstm.model.recurrence.wavefront import wavefront_stack


class Carry(TypedDict):
    """What every layer hands on from one time step, and one window, to the next."""

    h: jax.Array  # [L, B, H] float32, the outputs
    c: jax.Array  # [L, B, H] float32, the cell states


class Recurrence(Protocol):
    """Runs a window through the stack."""

    def __call__(
        self,
        layers: list[dict[str, jax.Array]],
        inputs: jax.Array,
        carry: Carry,
        masks: jax.Array | None,
        compute_dtype: Any,
    ) -> tuple[jax.Array, Carry]:
        """Runs a window through the stack.

        Args:
          layers: from the bottom up, `weight_ih` [F, 4H] in the first and [H, 4H] in the others,
            `weight_hh` [H, 4H] and `bias` [4H]; float32.
          inputs: the first layer's, [T, B, F] in the compute dtype; or [T, B], integers below F,
            which stand for one-hot vectors and look up rows of `weight_ih`.
          carry: the state before the window.
          masks: [L-1, T, B, H] or [L-1, 1, B, H], factors on what layer l passes to layer l+1
            (0 where dropped, 1/(1-dropout) elsewhere); None drops nothing.
          compute_dtype: of the products' inputs and of the saved activations.

        Returns:
          What the head reads, [T, B, H] in the compute dtype: of a plain stack the top layer's
          outputs; and the carry after the window.
        """


_RECURRENCES: dict[str, Recurrence] = {
    "scan": scan_stack,
    "scan_columns": scan_columns_stack,
    "scan_recompute": scan_recompute_stack,
    "wavefront": wavefront_stack,
    "pallas_tpu": pallas_tpu_stack,
    "cudnn": cudnn_stack,
    "split": split_stack,
    "layer_norm": layer_norm_stack,
}

# A CPU is faster with streams as columns from this hidden size on, or with many streams from this
# one on; (hidden size, streams), as measured: benchmarks/README.md.
COLUMNS_FROM = ((384, 1), (256, 64))


def resolve(
    name: str,
    hidden_size: int,
    wavefront_chunk: int,
    residuals: str = "gates",
    num_streams: int = 1,
) -> str:
    """The full name of the recurrence that `model.recurrence` stands for on this machine.

    `auto` chooses: on a CPU by the hidden size and the number of streams, as measured; elsewhere,
    where nothing is measured yet, the scan. The wavefront's full name has its chunk size:
    `wavefront/32`. With residuals `state` it is the scan that keeps h and c alone.
    """
    if residuals == "state":
        return "scan_recompute"
    if name == "wavefront":
        return f"wavefront/{wavefront_chunk}"
    if name != "auto":
        return name
    wide = any(hidden_size >= hidden and num_streams >= streams for hidden, streams in COLUMNS_FROM)
    return "scan_columns" if jax.default_backend() == "cpu" and wide else "scan"


def with_structure(name: str, *, layer_norm: bool, connections: str) -> str:
    """The full name of what runs a network with normalisation or connections past its layers.

    Args:
      name: the full name of the recurrence for a plain stack.
      layer_norm: whether the layers normalise: that takes a recurrence of its own.
      connections: `plain`, `residual` or `skip`; of the latter two the full name is `scan+skip`.
    """
    name = "layer_norm" if layer_norm else name
    return name if connections == "plain" else f"{name}+{connections}"


def get(name: str) -> Recurrence:
    """The recurrence of a full name, see `resolve`; without a chunk size, the default one."""
    name, _, connections = name.partition("+")
    kind, _, chunk_size = name.partition("/")
    run = _RECURRENCES[kind]
    if chunk_size:
        run = partial(wavefront_stack, chunk_size=int(chunk_size))
    return partial(connected_stack, run=run, connections=connections) if connections else run
