"""The decode loop: a prompt is read by a scan, then symbols are drawn in one jitted loop.

A symbol costs one step of the network on weights that were laid out once, see `model.stepping`.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.model import language_model, recurrence
from charlstm.model.language_model import Params
from charlstm.model.recurrence import Carry
from charlstm.model.stepping import Columns, StepWeights, step, step_weights
from charlstm.sampling.filters import filter_logits
from charlstm.sampling.forcing import Forced, hold
from charlstm.sharding import dimension, specify

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
    forced: tuple[Forced, ...] = ()  # cells held at values before each step
    # Bytes, counted from the prompt's start, after which the state is zero again; 0 for never.
    reset_every: int = 0


class Loaded(NamedTuple):
    """A model ready to draw from, see `Decoder.load`."""

    params: Params
    weights: StepWeights


class Decoder:
    """Draws symbols from models of one shape, `batch` texts side by side.

    Args:
      batch: how many texts.
      settings: how symbols are drawn.
      compute_dtype: of the products.
      axis: the mesh axis to split the texts over, if any.
      connections: past layers, as in `model.connections`.
    """

    def __init__(
        self,
        batch: int,
        settings: Settings,
        compute_dtype: Any = jnp.float32,
        axis: str | None = None,
        connections: str = "plain",
    ):
        self._batch, self._axis, self._reset_every = batch, axis, settings.reset_every
        self._lay_out = jax.jit(functools.partial(step_weights, compute_dtype=compute_dtype))
        self._start = jax.jit(
            functools.partial(language_model.zero_carry, num_streams=batch, axis=axis)
        )
        self._prefill = jax.jit(
            functools.partial(
                _prefill,
                forced=settings.forced,
                compute_dtype=compute_dtype,
                connections=connections,
            ),
            donate_argnums=2,
        )
        # A program of its own: XLA's CPU backend has no bfloat16 product of what it lays out by
        # columns for the sake of a transposition after it, or before.
        self._turn = jax.jit(lambda carry, logits: (Columns.of(carry), logits.T))
        self._decode = jax.jit(
            functools.partial(_decode, settings=settings, connections=connections),
            donate_argnums=(1, 2),
        )

    def load(self, params: Params) -> Loaded:
        """Lays the parameters, float32, out for drawing: once for any number of calls."""
        return Loaded(params, self._lay_out(params))

    def __call__(
        self, model: Loaded, prompt: np.ndarray, num_symbols: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yields what follows the prompt, some symbols at a time: uint8 [B, n].

        Args:
          model: of `load`.
          prompt: uint8 [P], symbols; P ≥ 1.
          num_symbols: how many to draw for each text.
          seed: the same seed gives the same symbols.
        """
        params, weights = model
        carry = self._start(params)
        num_read = len(prompt)
        if self._reset_every:  # what was read before the last reset has left no trace
            prompt = prompt[(num_read - 1) // self._reset_every * self._reset_every :]
        for chunk in _prefill_chunks(prompt):
            symbols = np.repeat(chunk[:, None], self._batch, axis=1)
            if self._axis is not None:
                symbols = jax.device_put(symbols, jax.P(None, self._axis))
            carry, logits = self._prefill(params, weights, carry, symbols)
        state, logits = self._turn(carry, logits)
        key = jax.random.key(seed)
        drawn, length = 0, FIRST_CHUNK
        while drawn < num_symbols:
            count = min(length, num_symbols - drawn)
            state, logits, symbols = self._decode(
                weights, state, logits, key, np.int32(drawn), np.int32(count), np.int32(num_read)
            )
            yield np.asarray(symbols)[:count].T
            drawn, length = drawn + count, min(2 * length, LARGEST_CHUNK)


def _prefill(
    params: Params,
    weights: StepWeights,
    carry: Carry,
    symbols: jax.Array,
    *,
    forced: tuple[Forced, ...],
    compute_dtype: Any,
    connections: str,
) -> tuple[Carry, jax.Array]:
    """Reads symbols [T, B]; the state, and the logits [B, V] of what comes next."""
    if not forced:
        name = recurrence.with_structure(
            "scan",
            layer_norm=language_model.is_normalised(params),
            connections=connections,
        )
        outputs, carry = language_model.outputs_of(
            params, carry, symbols, compute_dtype=compute_dtype, recurrence_name=name
        )
        return carry, language_model.logits_of(params, outputs[-1:])[0]

    def read(state: Columns, symbols: jax.Array) -> tuple[Columns, jax.Array]:
        logits, state = step(weights, hold(state, forced), symbols, connections)
        return state, logits

    state, logits = jax.lax.scan(read, Columns.of(carry), symbols)
    return state.carry(), logits[-1].T


def _decode(
    weights: StepWeights,
    state: Columns,
    logits: jax.Array,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
    num_read: jax.Array,
    *,
    settings: Settings,
    connections: str,
) -> tuple[Columns, jax.Array, jax.Array]:
    """Draws symbols number start … start + count - 1, which follow a prompt of `num_read`.

    Returns:
      The state and the logits [V, B] after them, and uint8 [LARGEST_CHUNK, B] of which the first
      `count` rows are the symbols.
    """
    axis = dimension(logits, 1)
    # A number for each symbol and text by the symbol's own place: the chunks do not matter.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, start + jnp.arange(LARGEST_CHUNK))
    chances = jax.vmap(lambda key: jax.random.uniform(key, logits.shape[1:]))(keys)
    if axis is not None:
        chances = jax.reshard(chances, jax.P(None, axis))

    def body(index: jax.Array, loop: tuple[Columns, jax.Array, jax.Array]) -> Any:
        state, logits, drawn = loop
        symbols = draw(logits, chances[index], settings)
        if settings.reset_every:
            is_fresh = (num_read + start + index) % settings.reset_every == 0
            state = jax.tree.map(lambda leaf: jnp.where(is_fresh, 0.0, leaf), state)
        logits, state = step(weights, hold(state, settings.forced), symbols, connections)
        return state, logits, drawn.at[index].set(symbols)

    drawn = jnp.zeros(chances.shape, jnp.uint8, out_sharding=specify(None, axis))
    return jax.lax.fori_loop(0, count, body, (state, logits, drawn))


def draw(logits: jax.Array, chances: jax.Array, settings: Settings) -> jax.Array:
    """One symbol for each column of logits [V, B]: uint8 [B].

    By inversion of the distribution function: a symbol is drawn by one random number, its place in
    [0, 1) among the probabilities laid end to end.

    Args:
      logits: [V, B] float32.
      chances: [B] float32, uniform in [0, 1).
      settings: temperature and filters.
    """
    if settings.temperature == 0:
        return jnp.argmax(logits, axis=0).astype(jnp.uint8)
    logits = logits / settings.temperature
    if settings.top_k or settings.top_p < 1:
        logits = filter_logits(logits.T, settings.top_k, settings.top_p).T
    weights = jnp.exp(logits - jnp.max(logits, axis=0))
    # A symbol without weight is never drawn, however the sums are rounded.
    ends = jnp.where(weights > 0, jnp.cumsum(weights, axis=0), 0)
    return jnp.argmax(ends > chances * jnp.max(ends, axis=0), axis=0).astype(jnp.uint8)


def _prefill_chunks(prompt: np.ndarray) -> Iterator[np.ndarray]:
    begin = 0
    while begin < len(prompt):
        length = next(size for size in PREFILL_CHUNKS if size <= len(prompt) - begin)
        yield prompt[begin : begin + length]
        begin += length
