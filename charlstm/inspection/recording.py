"""A model reading a text, everything it does written down: cells, gates, predictions, surprise.

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

from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry, gates
from charlstm.model.recurrence.layer_norm import Norms, cell, normalise, preactivations

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
    """What a model did at each of the N bytes of a text.

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
    """Cell states float32 of any shape as int8; `unsquash` is the inverse, but for rounding."""
    x = jnp.round(127 * c / (1 + jnp.abs(c)))
    return jnp.clip(x, -LARGEST_SQUASHED, LARGEST_SQUASHED).astype(jnp.int8)


def unsquash(q: np.ndarray) -> np.ndarray:
    """Cell states, float32, of squashed ones."""
    x = np.asarray(q, np.float32) / 127
    return x / (1 - np.abs(x))


def record(
    params: Params,
    text: np.ndarray,
    alphabet: Alphabet,
    compute_dtype: Any,
    connections: str = "plain",
) -> Recording:
    """Reads a text.

    Args:
      params: the model's parameters, float32.
      text: uint8 [N], N ≥ 1.
      alphabet: of the model.
      compute_dtype: of the products.
      connections: past layers, as in `model.connections`.

    Raises:
      UserError: the text has a byte outside the alphabet, or the recording finds no room on disk.
    """
    alphabet.encode(text)  # raises for a byte that the model does not know
    num_layers, num_cells = language_model.stack_shape(params)
    rows = _Rows(len(text))
    read = jax.jit(
        functools.partial(_read, compute_dtype=compute_dtype, connections=connections),
        donate_argnums=1,
    )
    carry = language_model.zero_carry(params, rows.count)
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
        carry, found = read(params, carry, window, rows.is_recorded(places[:-1]))
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
    """How a text of N bytes is cut into rows."""

    def __init__(self, num_bytes: int):
        self.count = min(MAX_ROWS, max(1, num_bytes // BYTES_IN_A_ROW))
        bounds = np.arange(self.count + 1) * num_bytes // self.count
        self._first, self._last = bounds[:-1], bounds[1:]
        # The first row reads the line break before the text, at place -1.
        self._read_from = np.maximum(self._first - WARM_UP, -1)
        self.steps = int(np.max(self._last - self._read_from))

    def places(self, begin: int) -> np.ndarray:
        """The places of steps `begin` … `begin + WINDOW_LENGTH` of every row: int64 [T+1, B]."""
        return begin + np.arange(WINDOW_LENGTH + 1)[:, None] + self._read_from

    def is_recorded(self, places: np.ndarray) -> np.ndarray:
        """Which places are their row's own and no warm-up, nor beyond its end."""
        return (places >= self._first) & (places < self._last)

    def part(self, row: int, places: np.ndarray) -> tuple[int, int, slice]:
        """What of a window a row records: from which place to which, and where in the window."""
        begin, end = int(places[0, row]), int(places[-1, row])
        start = min(max(begin, int(self._first[row])), end)
        stop = max(start, min(end, int(self._last[row])))
        return start, stop, slice(start - begin, stop - begin)


def _read(
    params: Params,
    carry: Carry,
    window: jax.Array,
    recorded: jax.Array,
    *,
    compute_dtype: Any,
    connections: str,
) -> tuple[Carry, _Window]:
    """Reads symbols [T+1, B], of which the last row is only predicted; [T, B] says what counts."""
    layers = language_model.layers_of(params)
    normalised = language_model.is_normalised(params)
    inputs = jnp.take(layers[0]["weight_ih"], window[:-1].astype(jnp.int32), axis=0)
    total: Any = 0.0
    h_after, c_after, cells, saturated = [], [], [], []
    for index, weights in enumerate(layers):
        if index:
            inputs = _product(inputs, weights["weight_ih"], compute_dtype)
        if normalised:
            inputs = normalise(inputs, weights["gain_ih"])
        projection = (inputs + weights["bias"]).astype(compute_dtype)
        norms = Norms.of(weights) if normalised else None
        (h, c), trace = _layer(
            projection,
            weights["weight_hh"],
            carry["h"][index],
            carry["c"][index],
            compute_dtype,
            norms,
        )
        h_after.append(h)
        c_after.append(c)
        outputs, states, gate_values = trace
        total = outputs if connections == "plain" else total + outputs
        inputs = total if connections == "residual" else outputs
        cells.append(squash(states))
        saturated.append(_saturated(gate_values, recorded))
    logits = _product(total, params["head"]["kernel"], compute_dtype) + params["head"]["bias"]
    nats, _ = language_model.next_symbol_nats(logits, window[1:])
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
    return {"h": jnp.stack(h_after), "c": jnp.stack(c_after)}, found


def _layer(
    projection: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
    compute_dtype: Any,
    norms: Norms | None,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """One layer over a window, nothing thrown away.

    Args:
      projection: [T, B, 4H], the input's share of the pre-activations.
      weight_hh: [H, 4H] float32.
      h, c: [B, H] float32, the state before the window.
      compute_dtype: of the products.
      norms: of a layer that normalises.

    Returns:
      The state after the window; outputs [T, B, H], cell states [T, B, H], and the input, forget
      and output gates [T, 3, B, H], float32.
    """
    weight = weight_hh.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], z: jax.Array) -> Any:
        h, c = state
        z, recurrent = z.astype(jnp.float32), _product(h, weight, compute_dtype)
        if norms is None:
            z = z + recurrent
            h, c, _ = gates.forward(z, c, axis=-1)
        else:
            z = preactivations(norms, z, recurrent, axis=-1)
            h, c = cell(norms, z, c, axis=-1)
        i, f, _, o = gates.activations(z, axis=-1)
        return (h, c), (h, c, jnp.stack([i, f, o]))

    return jax.lax.scan(step, (h, c), projection)


def _product(inputs: jax.Array, weight: jax.Array, compute_dtype: Any) -> jax.Array:
    return jnp.matmul(
        inputs.astype(compute_dtype),
        weight.astype(compute_dtype),
        preferred_element_type=jnp.float32,
    )


def _saturated(gate_values: jax.Array, recorded: jax.Array) -> jax.Array:
    """At how many recorded places [T, B] the gates [T, 3, B, H] are saturated: [3, 2, H]."""
    sides = jnp.stack([gate_values < LEFT_SATURATED, gate_values > RIGHT_SATURATED], axis=2)
    return jnp.sum(sides & recorded[:, None, None, :, None], axis=(0, 3), dtype=jnp.float32)


def _on_disk(shape: tuple[int, int]) -> np.ndarray:
    """An int8 array in a nameless file: memory serves it while there is some."""
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
