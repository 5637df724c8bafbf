"""The time loop of a stack of LSTM layers, in several implementations of one signature.

Every implementation is a `Recurrence`; `get` finds one by its name in the configuration.
"""

from functools import partial
from typing import Any, Protocol, TypedDict

import jax

from charlstm.model.recurrence.cudnn import cudnn_stack
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
        symbols: jax.Array,
        carry: Carry,
        masks: jax.Array | None,
        compute_dtype: Any,
    ) -> tuple[jax.Array, Carry]:
        """Runs a window through the stack.

        Args:
          layers: from the bottom up, `weight_ih` [V, 4H] in the first and [H, 4H] in the others,
            `weight_hh` [H, 4H] and `bias` [4H]; float32.
          symbols: [T, B], integers below V: the first layer's inputs, one-hot.
          carry: the state before the window.
          masks: [L-1, T, B, H] or [L-1, 1, B, H], factors on what layer l passes to layer l+1
            (0 where dropped, 1/(1-dropout) elsewhere); None drops nothing.
          compute_dtype: of the products' inputs and of the saved activations.

        Returns:
          The top layer's outputs [T, B, H] in the compute dtype, and the carry after the window.
        """


_RECURRENCES: dict[str, Recurrence] = {
    "scan": scan_stack,
    "scan_columns": scan_columns_stack,
    "scan_recompute": scan_recompute_stack,
    "wavefront": wavefront_stack,
    "pallas_tpu": pallas_tpu_stack,
    "cudnn": cudnn_stack,
    "split": split_stack,
}

# From this hidden size on, a CPU is faster with streams as columns (benchmarks/README.md).
COLUMNS_FROM_HIDDEN_SIZE = 384


def resolve(name: str, hidden_size: int, wavefront_chunk: int, residuals: str = "gates") -> str:
    """The full name of the recurrence that `model.recurrence` stands for on this machine.

    `auto` chooses: on a CPU by the hidden size, as measured; elsewhere, where nothing is measured
    yet, the scan. The wavefront's full name has its chunk size: `wavefront/32`. With residuals
    `state` it is the scan that keeps h and c alone.
    """
    if residuals == "state":
        return "scan_recompute"
    if name == "wavefront":
        return f"wavefront/{wavefront_chunk}"
    if name != "auto":
        return name
    wide = hidden_size >= COLUMNS_FROM_HIDDEN_SIZE
    return "scan_columns" if jax.default_backend() == "cpu" and wide else "scan"


def get(name: str) -> Recurrence:
    """The recurrence of a full name, see `resolve`; without a chunk size, the default one."""
    kind, _, chunk_size = name.partition("/")
    if kind == "wavefront" and chunk_size:
        return partial(wavefront_stack, chunk_size=int(chunk_size))
    return _RECURRENCES[kind]
