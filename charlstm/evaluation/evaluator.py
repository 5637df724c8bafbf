"""Scores a text in bits per byte: all of it, the state carried or not as in training.

The text is cut into rows that run side by side. Where the state is carried, each row first reads
the bytes before it, unscored, so that it starts with a state as good as the true one; the first row
reads what comes before the text in its corpus, and where nothing does, the text begins as if after
a line break.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.data.mapped import release
from charlstm.data.streams import resident_bytes
from charlstm.evaluation.rows import WARM_UP, Rows
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import next_symbol_nats
from charlstm.model.stack import Carry
from charlstm.runtime import meshes

CHUNK = 16  # windows in one jitted call
CHUNKS_AHEAD = 2  # of the device
BYTES_BEFORE_TEXT = b"\n"
# Texts up to this size stay on the device from one evaluation to the next.
RESIDENT_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The score of a text under a model."""

    num_bytes: int
    nats: float  # mean negative log-likelihood of a byte
    accuracy: float  # share of the bytes that were the likeliest

    @property
    def bits_per_byte(self) -> float:
        """The mean negative log2-likelihood of a byte."""
        return self.nats / math.log(2)


class Evaluator:
    """Scores `data[start:stop]` under models of one alphabet and one `reset_every`.

    Args:
      model: one of the models, read for both.
      data: uint8 [N], the corpus that the text is part of.
      start, stop: the bounds of the text; stop > start.
      mesh: the devices; rows are split over them.
      warm_up: bytes that each row reads first, unscored; of no use where the state is reset.

    Raises:
      UserError: the text has a byte that is outside the alphabet.
    """

    def __init__(
        self,
        model: LanguageModel,
        data: np.ndarray,
        start: int,
        stop: int,
        mesh: jax.sharding.Mesh,
        *,
        warm_up: int = WARM_UP,
    ):
        model.alphabet.encode(data[start:stop])  # raises for a byte that the model does not know
        self._data, self._alphabet, self._mesh = data, model.alphabet, mesh
        self.num_bytes = stop - start
        split = mesh.shape[meshes.DATA_AXIS]
        if model.reset_every:
            self._rows = Rows.fresh(start, stop, split, model.reset_every)
        else:
            self._rows = Rows.carried(start, stop, split, warm_up)
        self._resident: list[tuple[jax.Array, jax.Array]] = []

    def __call__(self, model: LanguageModel) -> Evaluation:
        """Scores the whole text; the model is left as it is."""
        (result,) = self.at_temperatures(model, [1.0])
        return result

    def at_temperatures(
        self, model: LanguageModel, temperatures: Sequence[float]
    ) -> list[Evaluation]:
        """Scores the whole text at several temperatures (logits are divided by them), reading once.

        Raises:
          ZeroDivisionError: a temperature is 0.
        """
        found = self._scores(model, lambda: False, tuple(temperatures))
        assert found is not None
        return found

    def interruptible(
        self, model: LanguageModel, should_stop: Callable[[], bool]
    ) -> Evaluation | None:
        """Scores the whole text; None if `should_stop`, asked before each chunk, returns True."""
        found = self._scores(model, should_stop, (1.0,))
        return None if found is None else found[0]

    def _scores(
        self,
        model: LanguageModel,
        should_stop: Callable[[], bool],
        temperatures: tuple[float, ...],
    ) -> list[Evaluation] | None:
        carry = _zero_carry(model, self._rows.count)
        sums: list[tuple[jax.Array, jax.Array]] = []
        for windows, scored in self._chunks():
            if should_stop():
                return None
            if len(sums) >= CHUNKS_AHEAD:  # further ahead, the question above would come late
                jax.block_until_ready(sums[-CHUNKS_AHEAD])
            carry, chunk_sums = _score_chunk(
                model,
                carry,
                windows,
                scored,
                is_fresh=self._rows.is_fresh,
                temperatures=temperatures,
            )
            sums.append(chunk_sums)
        nats, correct = np.zeros(len(temperatures)), 0.0
        for chunk_nats, chunk_correct in jax.device_get(sums):
            nats += np.sum(chunk_nats, axis=0, dtype=np.float64)
            correct += float(np.sum(chunk_correct, dtype=np.float64))
        count = self.num_bytes
        return [Evaluation(count, float(total) / count, correct / count) for total in nats]

    def _chunks(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Yields windows uint8 [K, T+1, R] and which of their targets count, bool [K, T, R]."""
        if self._resident:
            yield from self._resident
            return
        split = meshes.split_streams(self._mesh, axis=2, ndim=3)
        kept = []
        for begin in range(0, self._rows.num_windows, CHUNK):
            places, scored = self._rows.windows(begin, CHUNK)
            chunk = (
                meshes.put_shards(
                    places.shape,
                    np.dtype(np.uint8),
                    split,
                    functools.partial(self._symbols, places),
                ),
                meshes.put(scored, split),
            )
            if self.num_bytes <= min(RESIDENT_BYTES, resident_bytes() // 4):
                kept.append(chunk)
            yield chunk
        self._resident = kept

    def _symbols(self, every_place: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        """Returns the symbols of one process's share of the rows."""
        places = every_place[index]
        text = self._data[np.clip(places, 0, len(self._data) - 1)]
        release(self._data)
        text = np.where(places < 0, np.uint8(BYTES_BEFORE_TEXT[0]), text)
        return self._alphabet.encode_table[text]


@functools.partial(jax.jit, static_argnames="count")
def _zero_carry(model: LanguageModel, count: int) -> Carry:
    return model.zero_carry(count, meshes.DATA_AXIS)


@functools.partial(jax.jit, static_argnames=("is_fresh", "temperatures"), donate_argnames="carry")
def _score_chunk(
    model: LanguageModel,
    carry: Carry,
    windows: jax.Array,
    scored: jax.Array,
    *,
    is_fresh: bool,
    temperatures: tuple[float, ...],
) -> tuple[Carry, tuple[jax.Array, jax.Array]]:
    """Scores windows [K, T+1, R].

    Returns:
      The carry after them; sums of nats [K, temperatures] and of right guesses [K], float32.
    """

    def body(carry: Carry, inputs: tuple[jax.Array, jax.Array]) -> Any:
        window, scored = inputs
        before = carry
        if is_fresh:
            before = model.zero_carry(window.shape[1], meshes.DATA_AXIS)
        logits, after = model.apply(before, window[:-1])
        sums = []
        for temperature in temperatures:
            scaled = logits if temperature == 1 else logits * (1 / temperature)
            nats, correct = next_symbol_nats(scaled, window[1:])
            sums.append(jnp.sum(nats, where=scored))
        carry = carry if is_fresh else after
        return carry, (jnp.stack(sums), jnp.sum(correct, where=scored))

    carry, sums = jax.lax.scan(body, carry, (windows, scored))
    return carry, sums
