"""Records what a model does as it reads a text: cells, gates, predictions, surprise.

The text is cut into rows that are read side by side. Each row first reads the bytes before it,
unrecorded, so that its cells are in a state as good as the true one; before the text's first byte
stands a line break.

Cell states have no bounds, and what matters is their order and their size near 0. They are kept as
int8 of x = c / (1 + |c|), which keeps both: see `squash` and `unsquash`.
"""

import dataclasses
import functools
import math
import os
import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from charlstm.errors import UserError
from charlstm.model.cell import Layer
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network, next_symbol_nats
from charlstm.model.parameters import layers_of
from charlstm.model.stack import Carry, State, restack, unstack, walk

WINDOW_LENGTH = 256
WARM_UP = 4 * WINDOW_LENGTH  # bytes that each row reads before its own
MAX_ROWS = 64
BYTES_IN_A_ROW = 8 * WARM_UP  # a text of fewer is not cut
NUM_LIKELIEST = 5
BYTE_BEFORE_TEXT = ord("\n")

LARGEST_SQUASHED = 126  # of 127, which would stand for an infinite state
SURPRISE_STEPS_PER_BIT = 16
GATES = ("input", "forget", "output")
# Karpathy, Johnson & Li (2015, section 4.2): a gate is left-saturated below 0.1 and
# right-saturated above 0.9.
LEFT_SATURATED, RIGHT_SATURATED = 0.1, 0.9


@dataclasses.dataclass(frozen=True)
class Recording:
    """The record of a model that read a text of N bytes.

    Attributes:
      cells: int8 [L·H, N], squashed cell states after each byte; layer l has rows l·H … l·H+H-1.
      likeliest: uint8 [N, 5], the bytes most likely to come next, the likeliest first.
      probabilities: uint8 [N, 5], theirs in 255ths; 0 where the alphabet has fewer bytes.
      surprise: uint8 [N], what each byte cost to predict, in sixteenths of a bit, 255 for more.
      bits_per_byte: the mean of the unrounded surprise.
      saturation: float32 [L, 3, 2, H], the share of bytes at which each cell's input, forget and
        output gates are left- and right-saturated.
    """

    cells: np.ndarray
    likeliest: np.ndarray
    probabilities: np.ndarray
    surprise: np.ndarray
    bits_per_byte: float
    saturation: np.ndarray


class _Window(NamedTuple):
    """One window on the device."""

    cells: jax.Array  # int8 [B, L·H, T]
    likeliest: jax.Array  # uint8 [B, T, 5], symbols
    probabilities: jax.Array  # uint8 [B, T, 5]
    bits: jax.Array  # float32 [B, T], what the byte after cost
    saturated: jax.Array  # float32 [L, 3, 2, H], at how many of the recorded bytes


def squash(c: Any) -> Any:
    """Returns cell states, float32, as int8; `unsquash` is the inverse but for rounding."""
    x = jnp.round(127 * c / (1 + jnp.abs(c)))
    return jnp.clip(x, -LARGEST_SQUASHED, LARGEST_SQUASHED).astype(jnp.int8)


def unsquash(q: np.ndarray) -> np.ndarray:
    """Returns the cell states, float32, of squashed ones."""
    x = np.asarray(q, np.float32) / 127
    return x / (1 - np.abs(x))


def record(model: LanguageModel, text: np.ndarray) -> Recording:
    """Reads a text.

    Args:
      model: on one device.
      text: uint8 [N], N ≥ 1.

    Raises:
      UserError: the text has a byte outside the alphabet, or the recording finds no room on disk.
    """
    alphabet = model.alphabet
    alphabet.encode(text)  # raises for a byte that the model does not know
    num_layers, num_cells = model.shape
    rows = _Rows(len(text))
    carry = model.zero_carry(rows.count)
    cells = _on_disk((num_layers * num_cells, len(text)))
    likeliest = np.zeros((len(text), NUM_LIKELIEST), np.uint8)
    probabilities = np.zeros_like(likeliest)
    bits = np.zeros(len(text) + 1, np.float32)
    saturated = np.zeros((num_layers, len(GATES), 2, num_cells))
    for begin in tqdm(
        range(0, rows.steps, WINDOW_LENGTH), "reading", unit="window", leave=False, disable=None
    ):
        places = rows.places(begin)
        before = np.where(
            places < 0, np.uint8(BYTE_BEFORE_TEXT), text[places.clip(0, len(text) - 1)]
        )
        window = alphabet.encode_table[before]
        carry, found = _read(model, carry, window, rows.is_recorded(places[:-1]))
        found = jax.device_get(found)
        saturated += found.saturated
        for row in range(rows.count):
            start, stop, here = rows.part(row, places)
            cells[:, start:stop] = found.cells[row][:, here]
            likeliest[start:stop] = alphabet.decode_table[found.likeliest[row, here]]
            probabilities[start:stop] = found.probabilities[row, here]
            bits[start + 1 : stop + 1] = found.bits[row, here]
            if start == 0 and stop > 0:
                # What the first byte cost was found one place before it.
                bits[0] = found.bits[row, here.start - 1]
    surprise = bits[: len(text)]
    return Recording(
        cells=cells,
        likeliest=likeliest,
        probabilities=probabilities,
        surprise=np.minimum(np.round(surprise * SURPRISE_STEPS_PER_BIT), 255).astype(np.uint8),
        bits_per_byte=float(surprise.mean(dtype=np.float64)),
        saturation=(saturated / len(text)).astype(np.float32),
    )


class _Rows:
    """The rows that a text of N bytes is cut into."""

    def __init__(self, num_bytes: int):
        self.count = min(MAX_ROWS, max(1, num_bytes // BYTES_IN_A_ROW))
        bounds = np.arange(self.count + 1) * num_bytes // self.count
        self._first, self._last = bounds[:-1], bounds[1:]
        # The first row reads the line break before the text, at place -1.
        self._read_from = np.maximum(self._first - WARM_UP, -1)
        self.steps = int(np.max(self._last - self._read_from))

    def places(self, begin: int) -> np.ndarray:
        """Returns the places of T+1 steps from `begin` on, of every row: int64 [T+1, B]."""
        return begin + np.arange(WINDOW_LENGTH + 1)[:, None] + self._read_from

    def is_recorded(self, places: np.ndarray) -> np.ndarray:
        """Returns which places are their row's own: neither warm-up nor beyond its end."""
        return (places >= self._first) & (places < self._last)

    def part(self, row: int, places: np.ndarray) -> tuple[int, int, slice]:
        """Returns what a row records of a window: from which place to which, and where in it."""
        begin, end = int(places[0, row]), int(places[-1, row])
        start = min(max(begin, int(self._first[row])), end)
        stop = max(start, min(end, int(self._last[row])))
        return start, stop, slice(start - begin, stop - begin)


@functools.partial(jax.jit, donate_argnames="carry")
def _read(
    model: LanguageModel, carry: Carry, window: jax.Array, recorded: jax.Array
) -> tuple[Carry, _Window]:
    """Reads symbols [T+1, B], of which the last row is only predicted; [T, B] says what counts."""
    network, layers = model.network, layers_of(model.params)
    cells, saturated = [], []

    def run_layer(index: int, inputs: jax.Array, state: State) -> tuple[jax.Array, State]:
        layer = layers[index]
        product = inputs if index == 0 else _product(inputs, layer["weight_ih"], network)
        share = network.cell.input_share(layer, product, -1).astype(network.compute.dtype)
        after, (outputs, states, gate_values) = _trace(network, layer, share, state)
        cells.append(squash(states))
        saturated.append(_saturated(gate_values, recorded))
        return outputs, after

    rows = jnp.take(layers[0]["weight_ih"], window[:-1].astype(jnp.int32), axis=0)
    total, after = walk(run_layer, rows, unstack(carry), None, network.connections)
    head = model.params["head"]
    logits = _product(total, head["kernel"], network) + head["bias"]
    nats, _ = next_symbol_nats(logits, window[1:])
    count = min(NUM_LIKELIEST, logits.shape[-1])
    highest, likeliest = jax.lax.top_k(jax.nn.log_softmax(logits), count)
    missing = ((0, 0), (0, 0), (0, NUM_LIKELIEST - count))
    found = _Window(
        cells=jnp.moveaxis(jnp.concatenate(cells, axis=-1), 0, -1),
        likeliest=jnp.pad(likeliest, missing).swapaxes(0, 1).astype(jnp.uint8),
        probabilities=jnp.pad(jnp.round(255 * jnp.exp(highest)), missing)
        .swapaxes(0, 1)
        .astype(jnp.uint8),
        bits=(nats / math.log(2)).T,
        saturated=jnp.stack(saturated),
    )
    return restack(after), found


def _trace(
    network: Network, layer: Layer, share: jax.Array, state: State
) -> tuple[State, tuple[jax.Array, jax.Array, jax.Array]]:
    """Runs one layer over a window and keeps everything.

    Args:
      network: the cell and the dtype of the products.
      layer: its parameters, float32.
      share: [T, B, 4H], the input's share of the pre-activations.
      state: before the window, [B, H] float32.

    Returns:
      The state after the window; outputs [T, B, H], cell states [T, B, H], and the input, forget
      and output gates [T, 3, B, H], float32.
    """
    cell, own = network.cell, network.cell.step_parameters(layer)

    def step(state: State, share: jax.Array) -> Any:
        h, c = state
        at = share.astype(jnp.float32), _product(h, layer["weight_hh"], network)
        i, f, _, o = cell.activations(own, *at, -1)
        h, c, _ = cell.forward(own, *at, c, -1, jnp.float32)
        return (h, c), (h, c, jnp.stack([i, f, o]))

    return jax.lax.scan(step, state, share)


def _product(inputs: jax.Array, weight: jax.Array, network: Network) -> jax.Array:
    dtype = network.compute.dtype
    return jnp.matmul(
        inputs.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
    )


def _saturated(gate_values: jax.Array, recorded: jax.Array) -> jax.Array:
    """Counts at how many recorded places [T, B] the gates [T, 3, B, H] are saturated: [3, 2, H]."""
    sides = jnp.stack([gate_values < LEFT_SATURATED, gate_values > RIGHT_SATURATED], axis=2)
    return jnp.sum(sides & recorded[:, None, None, :, None], axis=(0, 3), dtype=jnp.float32)


def _on_disk(shape: tuple[int, int]) -> np.ndarray:
    """Returns an int8 array in a nameless file: memory serves it while there is some."""
    try:
        with tempfile.TemporaryFile(prefix="charlstm-") as file:
            if hasattr(os, "posix_fallocate"):  # takes the room now: a full disk is told at once
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            else:
                file.truncate(math.prod(shape))
            return np.memmap(file, np.int8, mode="r+", shape=shape)
    except OSError as error:
        raise UserError(
            f"no room for {math.prod(shape) / 1e6:.0f} MB in {tempfile.gettempdir()} "
            f"({error.strerror}): make some, or inspect less with --max_bytes"
        ) from error
