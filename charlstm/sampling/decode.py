"""The decode loop: a prompt is read by a scan, then symbols are drawn in one jitted loop."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry
from charlstm.sampling.filters import filter_logits
from charlstm.sampling.forcing import Forced, hold

# Symbols in one call of the decode loop: few at first, so that text shows at once.
FIRST_CHUNK, LARGEST_CHUNK = 4, 128
# Prompt bytes in one call of the prefill; a prompt is cut into chunks of these lengths, so that
# prompts of every length share a few compiled programs.
PREFILL_CHUNKS = (256, 64, 16, 4, 1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How symbols are drawn."""

    temperature: float = 1.0  # logits are divided by it; 0 takes the likeliest symbol
    top_k: int = 0
    top_p: float = 1.0
    forced: tuple[Forced, ...] = ()  # cells held before every byte, of the prompt too


class Decoder:
    """Draws symbols from models of one shape, `batch` texts side by side.

    Args:
      batch: how many texts.
      settings: how symbols are drawn.
      compute_dtype: of the products.
    """

    def __init__(self, batch: int, settings: Settings, compute_dtype: Any = jnp.float32):
        self._batch = batch
        self._prefill = jax.jit(
            functools.partial(_prefill, forced=settings.forced, compute_dtype=compute_dtype),
            donate_argnums=1,
        )
        self._prefill_chunks = (1,) if settings.forced else PREFILL_CHUNKS
        self._decode = jax.jit(
            functools.partial(_decode, settings=settings, compute_dtype=compute_dtype),
            donate_argnums=(1, 2),
        )

    def __call__(
        self, params: Params, prompt: np.ndarray, num_symbols: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yields what follows the prompt, some symbols at a time: uint8 [B, n].

        Args:
          params: the parameters, float32.
          prompt: uint8 [P], symbols; P ≥ 1.
          num_symbols: how many to draw for each text.
          seed: the same seed gives the same symbols.
        """
        carry = language_model.zero_carry(params, self._batch)
        for chunk in _chunks(prompt, self._prefill_chunks):
            symbols = np.repeat(chunk[:, None], self._batch, axis=1)
            carry, logits = self._prefill(params, carry, symbols)
        key = jax.random.key(seed)
        drawn, length = 0, FIRST_CHUNK
        while drawn < num_symbols:
            count = min(length, num_symbols - drawn)
            carry, logits, symbols = self._decode(
                params, carry, logits, key, np.int32(drawn), np.int32(count)
            )
            yield np.asarray(symbols)[:count].T
            drawn, length = drawn + count, min(2 * length, LARGEST_CHUNK)


def _prefill(
    params: Params,
    carry: Carry,
    symbols: jax.Array,
    *,
    forced: tuple[Forced, ...],
    compute_dtype: Any,
) -> tuple[Carry, jax.Array]:
    """Reads symbols [T, B]; the carry, and the logits [B, V] of what comes next."""
    carry = hold(carry, forced)
    logits, carry = language_model.apply(params, carry, symbols, compute_dtype=compute_dtype)
    return carry, logits[-1]


def _decode(
    params: Params,
    carry: Carry,
    logits: jax.Array,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
    *,
    settings: Settings,
    compute_dtype: Any,
) -> tuple[Carry, jax.Array, jax.Array]:
    """Draws symbols number start … start + count - 1.

    Returns:
      The carry and the logits after them, and uint8 [LARGEST_CHUNK, B] of which the first `count`
      rows are the symbols.
    """

    def body(index: jax.Array, loop: tuple[Carry, jax.Array, jax.Array]) -> Any:
        carry, logits, drawn = loop
        symbols = draw(logits, jax.random.fold_in(key, start + index), settings)
        carry = hold(carry, settings.forced)
        logits, carry = language_model.apply(
            params, carry, symbols[None], compute_dtype=compute_dtype
        )
        return carry, logits[0], drawn.at[index].set(symbols)

    drawn = jnp.zeros((LARGEST_CHUNK, logits.shape[0]), jnp.uint8)
    return jax.lax.fori_loop(0, count, body, (carry, logits, drawn))


def draw(logits: jax.Array, key: jax.Array, settings: Settings) -> jax.Array:
    """One symbol for each row of logits [B, V]: uint8 [B]."""
    if settings.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    logits = filter_logits(logits / settings.temperature, settings.top_k, settings.top_p)
    return jax.random.categorical(key, logits).astype(jnp.uint8)


def _chunks(prompt: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    begin = 0
    while begin < len(prompt):
        length = next(size for size in sizes if size <= len(prompt) - begin)
        yield prompt[begin : begin + length]
        begin += length
