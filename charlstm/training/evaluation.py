"""Bits per byte of a text: the whole of it, state carried, on the device.

The text is cut into rows that run side by side. Each row first reads the bytes before it, unscored,
so that it starts with a state as good as the true one; the first row reads what comes before
the text in its corpus, and where nothing does, the text begins as if after a line break.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm import distributed
from charlstm.data.corpus import Alphabet
from charlstm.data.mapped import release
from charlstm.data.streams import resident_bytes
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.training.layout import Layout

WINDOW_LENGTH = 128
WARM_UP = 2 * WINDOW_LENGTH  # bytes that each row reads before its own
MAX_ROWS = 64
CHUNK = 16  # windows in one jitted call
CHUNKS_AHEAD = 2  # of the device
BYTES_BEFORE_TEXT = b"\n"
# Texts up to this size stay on the device from one evaluation to the next.
RESIDENT_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well a text was predicted."""

    num_bytes: int
    nats: float  # mean negative log-likelihood of a byte
    accuracy: float  # share of the bytes that were the likeliest

    @property
    def bits_per_byte(self) -> float:
        """The mean negative log2-likelihood of a byte."""
        return self.nats / math.log(2)


class Evaluator:
    """Scores `data[start:stop]` under the parameters it is called with.

    Args:
      data: uint8 [N], the corpus that the text is part of.
      start, stop: the bounds of the text; stop > start.
      alphabet: of the model.
      mesh: the devices; rows are split over them.
      compute_dtype, recurrence_name: as in `language_model.apply`.
      layout: of the parameters; None: whole on every device.

    Raises:
      UserError: the text has a byte that is outside the alphabet.
    """

    def __init__(
        self,
        data: np.ndarray,
        start: int,
        stop: int,
        alphabet: Alphabet,
        mesh: jax.sharding.Mesh,
        *,
        compute_dtype: Any,
        recurrence_name: str,
        layout: Layout | None = None,
    ):
        alphabet.encode(data[start:stop])  # raises for a byte that the model does not know
        self._data, self._start, self._stop = data, start, stop
        self._alphabet, self._mesh = alphabet, mesh
        self.num_bytes = stop - start
        rows = min(MAX_ROWS, max(1, self.num_bytes // WARM_UP))
        split = mesh.shape[distributed.DATA_AXIS]
        self._rows = math.ceil(rows / split) * split
        self._resident: list[tuple[jax.Array, jax.Array]] = []
        self._zero_carry = jax.jit(
            functools.partial(
                language_model.zero_carry, num_streams=self._rows, axis=distributed.DATA_AXIS
            )
        )
        self._score = jax.jit(
            functools.partial(
                _score_chunk,
                compute_dtype=compute_dtype,
                recurrence_name=recurrence_name,
                layout=layout,
            ),
            donate_argnums=1,
        )

    def __call__(self, params: Params) -> Evaluation:
        """Scores the whole text; the parameters are left as they are."""
        result = self.unless(params, lambda: False)
        assert result is not None
        return result

    def unless(self, params: Params, leaving: Callable[[], bool]) -> Evaluation | None:
        """Scores the whole text; None if `leaving`, asked before each chunk, says so."""
        carry = self._zero_carry(params)
        nats, correct = 0.0, 0.0
        sums: list[tuple[jax.Array, jax.Array]] = []
        for windows, scored in self._chunks():
            if leaving():
                return None
            if len(sums) >= CHUNKS_AHEAD:  # further ahead, the question above would be idle
                jax.block_until_ready(sums[-CHUNKS_AHEAD])
            carry, chunk_sums = self._score(params, carry, windows, scored)
            sums.append(chunk_sums)
        for chunk_nats, chunk_correct in jax.device_get(sums):
            nats += float(np.sum(chunk_nats, dtype=np.float64))
            correct += float(np.sum(chunk_correct, dtype=np.float64))
        return Evaluation(self.num_bytes, nats / self.num_bytes, correct / self.num_bytes)

    def _chunks(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Windows uint8 [K, T+1, R] and which of their targets count, bool [K, T, R]."""
        if self._resident:
            yield from self._resident
            return
        bounds = self._start + np.arange(self._rows + 1) * self.num_bytes // self._rows
        first, last = bounds[:-1], bounds[1:]
        read_from = np.maximum(first - WARM_UP, 0)  # each row's first target
        steps = int(np.max(last - read_from))
        split = distributed.split_streams(self._mesh, axis=2, ndim=3)
        kept = []
        for begin in range(0, steps, CHUNK * WINDOW_LENGTH):
            # Input t of row r is byte read_from[r] - 1 + t, its target the byte after it.
            windows = begin + np.arange(CHUNK)[:, None] * WINDOW_LENGTH
            steps_of = windows + np.arange(WINDOW_LENGTH + 1)
            places = steps_of[..., None] + read_from - 1
            targets = places[:, 1:]
            scored = (targets >= first) & (targets < last)
            chunk = (
                distributed.put_shards(
                    places.shape,
                    np.dtype(np.uint8),
                    split,
                    functools.partial(self._symbols, places),
                ),
                distributed.put(scored, split),
            )
            if self.num_bytes <= min(RESIDENT_BYTES, resident_bytes() // 4):
                kept.append(chunk)
            yield chunk
        self._resident = kept

    def _symbols(self, every_place: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        """The symbols of one process's share of the rows."""
        places = every_place[index]
        text = self._data[np.clip(places, 0, len(self._data) - 1)]
        release(self._data)
        text = np.where(places < 0, np.uint8(BYTES_BEFORE_TEXT[0]), text)
        return self._alphabet.encode_table[text]


def _score_chunk(
    params: Params,
    carry: Any,
    windows: jax.Array,
    scored: jax.Array,
    *,
    compute_dtype: Any,
    recurrence_name: str,
    layout: Layout | None,
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Carry after the chunk; sums of nats and of right guesses of each window, float32 [K]."""
    params = params if layout is None else layout.for_computing(params)

    def body(carry: Any, inputs: tuple[jax.Array, jax.Array]) -> Any:
        window, scored = inputs
        logits, carry = language_model.apply(
            params,
            carry,
            window[:-1],
            compute_dtype=compute_dtype,
            recurrence_name=recurrence_name,
        )
        nats, correct = language_model.next_symbol_nats(logits, window[1:])
        return carry, (jnp.sum(nats, where=scored), jnp.sum(correct, where=scored))

    carry, sums = jax.lax.scan(body, carry, (windows, scored))
    return carry, sums
