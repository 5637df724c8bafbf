"""Bits per byte of a text: the whole of it, the state carried or not as in training, on the device.

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

from charlstm import distributed
from charlstm.data.corpus import Alphabet
from charlstm.data.mapped import release
from charlstm.data.streams import resident_bytes
from charlstm.evaluation.rows import WARM_UP, Rows
from charlstm.model import language_model
from charlstm.model.language_model import Params

CHUNK = 16  # windows in one jitted call
CHUNKS_AHEAD = 2  # of the device
BYTES_BEFORE_TEXT = b"\n"
# Texts up to this size stay on the device from one evaluation to the next.
RESIDENT_BYTES = 2**26

Gather = Callable[[Params], Params]


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
      gather: makes the parameters whole for computing, where they are shared out over devices.
      reset_every: the state is zero before every so many bytes of the text; 0: it is carried on.
      warm_up: bytes that each row reads first, unscored; of no use where the state is reset.

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
        gather: Gather | None = None,
        reset_every: int = 0,
        warm_up: int = WARM_UP,
    ):
        alphabet.encode(data[start:stop])  # raises for a byte that the model does not know
        self._data, self._alphabet, self._mesh = data, alphabet, mesh
        self.num_bytes = stop - start
        split = mesh.shape[distributed.DATA_AXIS]
        if reset_every:
            self._rows = Rows.fresh(start, stop, split, reset_every)
        else:
            self._rows = Rows.carried(start, stop, split, warm_up)
        self._resident: list[tuple[jax.Array, jax.Array]] = []
        zero_carry = functools.partial(
            language_model.zero_carry, num_streams=self._rows.count, axis=distributed.DATA_AXIS
        )
        self._zero_carry = jax.jit(zero_carry)
        self._score = jax.jit(
            functools.partial(
                _score_chunk,
                compute_dtype=compute_dtype,
                recurrence_name=recurrence_name,
                gather=gather,
                fresh=zero_carry if self._rows.is_fresh else None,
            ),
            static_argnames="temperatures",
            donate_argnums=1,
        )

    def __call__(self, params: Params) -> Evaluation:
        """Scores the whole text; the parameters are left as they are."""
        (result,) = self.at_temperatures(params, [1.0])
        return result

    def at_temperatures(self, params: Params, temperatures: Sequence[float]) -> list[Evaluation]:
        """Scores the whole text at several temperatures (logits are divided by them), reading once.

        Raises:
          ZeroDivisionError: a temperature is 0.
        """
        found = self._scores(params, lambda: False, tuple(temperatures))
        assert found is not None
        return found

    def unless(self, params: Params, leaving: Callable[[], bool]) -> Evaluation | None:
        """Scores the whole text; None if `leaving`, asked before each chunk, says so."""
        found = self._scores(params, leaving, (1.0,))
        return None if found is None else found[0]

    def _scores(
        self, params: Params, leaving: Callable[[], bool], temperatures: tuple[float, ...]
    ) -> list[Evaluation] | None:
        carry = self._zero_carry(params)
        sums: list[tuple[jax.Array, jax.Array]] = []
        for windows, scored in self._chunks():
            if leaving():
                return None
            if len(sums) >= CHUNKS_AHEAD:  # further ahead, the question above would be idle
                jax.block_until_ready(sums[-CHUNKS_AHEAD])
            carry, chunk_sums = self._score(
                params, carry, windows, scored, temperatures=temperatures
            )
            sums.append(chunk_sums)
        nats, correct = np.zeros(len(temperatures)), 0.0
        for chunk_nats, chunk_correct in jax.device_get(sums):
            nats += np.sum(chunk_nats, axis=0, dtype=np.float64)
            correct += float(np.sum(chunk_correct, dtype=np.float64))
        count = self.num_bytes
        return [Evaluation(count, float(total) / count, correct / count) for total in nats]

    def _chunks(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Windows uint8 [K, T+1, R] and which of their targets count, bool [K, T, R]."""
        if self._resident:
            yield from self._resident
            return
        split = distributed.split_streams(self._mesh, axis=2, ndim=3)
        kept = []
        for begin in range(0, self._rows.num_windows, CHUNK):
            places, scored = self._rows.windows(begin, CHUNK)
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
    gather: Gather | None,
    fresh: Callable[[Params], Any] | None,
    temperatures: tuple[float, ...],
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """Carry after the chunk; sums of nats [K, temperatures] and of right guesses [K], float32."""
    params = params if gather is None else gather(params)

    def body(carry: Any, inputs: tuple[jax.Array, jax.Array]) -> Any:
        window, scored = inputs
        logits, after = language_model.apply(
            params,
            carry if fresh is None else fresh(params),
            window[:-1],
            compute_dtype=compute_dtype,
            recurrence_name=recurrence_name,
        )
        sums = []
        for temperature in temperatures:
            scaled = logits if temperature == 1 else logits * (1 / temperature)
            nats, correct = language_model.next_symbol_nats(scaled, window[1:])
            sums.append(jnp.sum(nats, where=scored))
        carry = after if fresh is None else carry
        return carry, (jnp.stack(sums), jnp.sum(correct, where=scored))

    carry, sums = jax.lax.scan(body, carry, (windows, scored))
    return carry, sums
