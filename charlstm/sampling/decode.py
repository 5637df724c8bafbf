"""The decode loop: a prompt is read by a scan, then symbols are drawn in one jitted loop.

A symbol costs one step of the network on weights that were laid out once, see `model.decode_step`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.errors import UserError
from charlstm.model.decode_step import DecodeState, DecodeWeights
from charlstm.model.language_model import LanguageModel
from charlstm.model.recurrence import Scan
from charlstm.model.stack import Carry
from charlstm.runtime.shardings import dimension, specify
from charlstm.sampling.clamping import Clamp, clamp
from charlstm.sampling.filters import divide, filter_logits

# Symbols in one call of the decode loop: few at first, so that text shows at once.
FIRST_CHUNK, LARGEST_CHUNK = 4, 128
# Prompt bytes in one call of the prefill; a prompt is cut into chunks of these lengths, so that
# prompts of every length share a few compiled programs.
PREFILL_CHUNKS = (256, 64, 16, 4, 1)

WHOLE = (int, np.integer)
NUMBER = (*WHOLE, float, np.floating)


def require(
    name: str,
    value: Any,
    kind: tuple[type, ...],
    is_allowed: Callable[[Any], bool],
    must_be: str,
) -> None:
    """Raises `UserError` unless a value is of a kind, such as `NUMBER`, and allowed."""
    if isinstance(value, bool) or not isinstance(value, kind) or not is_allowed(value):
        raise UserError(f"{name}={value!r} must be {must_be}")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of drawing symbols.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest symbol.
      top_k, top_p: see `filter_logits`.
      clamps: cells held at values before each step.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    clamps: tuple[Clamp, ...] = ()

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
          UserError: one is of the wrong type, or out of range.
        """
        for name, kind, is_allowed, must_be in (
            ("temperature", NUMBER, lambda v: 0 <= v < math.inf, "a finite number of 0 or more"),
            ("top_k", WHOLE, lambda v: v >= 0, "a whole number of 0 or more"),
            ("top_p", NUMBER, lambda v: 0 < v <= 1, "a number above 0 and at most 1"),
        ):
            require(name, getattr(self, name), kind, is_allowed, must_be)


class Loaded(NamedTuple):
    """A model ready to draw from; see `load`."""

    model: LanguageModel
    weights: DecodeWeights


def load(model: LanguageModel) -> Loaded:
    """Lays a model's parameters out for drawing: once for any number of calls."""
    # A prompt is read by the scan, whatever the model was trained with.
    return Loaded(model.with_recurrence(Scan()), _lay_out(model))


@jax.jit
def _lay_out(model: LanguageModel) -> DecodeWeights:
    return model.decode_weights()


class Prefix(NamedTuple):
    """B texts that were read, ready to be continued.

    Attributes:
      state: after them.
      logits: of what comes next, [V, B] float32.
      num_read: bytes of each text.
    """

    state: DecodeState
    logits: jax.Array
    num_read: int


class Decoder:
    """Draws symbols, `batch` texts side by side.

    Args:
      batch: how many texts.
      settings: how symbols are drawn.
      axis: the mesh axis to split the texts over, if any.
    """

    def __init__(self, batch: int, settings: Settings, axis: str | None = None):
        self._batch, self._settings, self._axis = batch, settings, axis

    def __call__(
        self, loaded: Loaded, prompt: np.ndarray, num_symbols: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yields what follows the prompt, some symbols at a time: uint8 [B, n].

        Args:
          loaded: of `load`.
          prompt: uint8 [P], symbols; P ≥ 1.
          num_symbols: how many to draw for each text.
          seed: the same seed gives the same symbols.
        """
        return self.draw(loaded, self.read(loaded, prompt), num_symbols, seed)

    def read(self, loaded: Loaded, prompt: np.ndarray, after: Prefix | None = None) -> Prefix:
        """Reads the same symbols, uint8 [P], in every text; P ≥ 1.

        Args:
          loaded: of `load`.
          prompt: the symbols.
          after: what was read before them; it is used up.
        """
        model, weights = loaded
        num_before = 0 if after is None else after.num_read
        num_read = num_before + len(prompt)
        if after is None:
            carry = _zero_carry(model, self._batch, self._axis)
        else:
            carry = _to_carry(after.state)
        if model.reset_every:  # what was read before the last reset has left no trace
            last_reset = (num_read - 1) // model.reset_every * model.reset_every
            if last_reset >= num_before:
                prompt = prompt[last_reset - num_before :]
                carry = _zero_carry(model, self._batch, self._axis)
        for chunk in _prefill_chunks(prompt):
            symbols = np.repeat(chunk[:, None], self._batch, axis=1)
            if self._axis is not None:
                symbols = jax.device_put(symbols, jax.P(None, self._axis))
            carry, logits = _prefill(model, weights, carry, symbols, clamps=self._settings.clamps)
        # A program of its own: XLA's CPU backend has no bfloat16 product of what it lays out by
        # columns for the sake of a transposition after it, or before.
        state, logits = _turn(carry, logits)
        return Prefix(state, logits, num_read)

    def draw(
        self, loaded: Loaded, prefix: Prefix, num_symbols: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yields what follows what was read, uint8 [B, n] at a time; the prefix is used up."""
        state, logits, num_read = prefix
        key = jax.random.key(seed)
        drawn, length = 0, FIRST_CHUNK
        while drawn < num_symbols:
            count = min(length, num_symbols - drawn)
            state, logits, symbols = _decode(
                *loaded,
                state,
                logits,
                key,
                np.int32(drawn),
                np.int32(count),
                np.int32(num_read),
                settings=self._settings,
            )
            yield np.asarray(symbols)[:count].T
            drawn, length = drawn + count, min(2 * length, LARGEST_CHUNK)


@functools.partial(jax.jit, static_argnames=("count", "axis"))
def _zero_carry(model: LanguageModel, count: int, axis: str | None) -> Carry:
    return model.zero_carry(count, axis)


@jax.jit
def _turn(carry: Carry, logits: jax.Array) -> tuple[DecodeState, jax.Array]:
    return DecodeState.of(carry), logits.T


@jax.jit
def _to_carry(state: DecodeState) -> Carry:
    return state.carry()


@functools.partial(jax.jit, static_argnames="clamps", donate_argnames="carry")
def _prefill(
    model: LanguageModel,
    weights: DecodeWeights,
    carry: Carry,
    symbols: jax.Array,
    *,
    clamps: tuple[Clamp, ...],
) -> tuple[Carry, jax.Array]:
    """Reads symbols [T, B]; returns the state, and the logits [B, V] of what comes next."""
    if not clamps:
        outputs, carry = model.network.outputs(model.params, carry, symbols)
        return carry, model.network.logits(model.params, outputs[-1:])[0]

    def read(state: DecodeState, symbols: jax.Array) -> tuple[DecodeState, jax.Array]:
        logits, state = model.decode_step(weights, clamp(state, clamps), symbols)
        return state, logits

    state, logits = jax.lax.scan(read, DecodeState.of(carry), symbols)
    return state.carry(), logits[-1].T


@functools.partial(jax.jit, static_argnames="settings", donate_argnames=("state", "logits"))
def _decode(
    model: LanguageModel,
    weights: DecodeWeights,
    state: DecodeState,
    logits: jax.Array,
    key: jax.Array,
    start: jax.Array,
    count: jax.Array,
    num_read: jax.Array,
    *,
    settings: Settings,
) -> tuple[DecodeState, jax.Array, jax.Array]:
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

    def body(index: jax.Array, loop: tuple[DecodeState, jax.Array, jax.Array]) -> Any:
        state, logits, drawn = loop
        symbols = draw(logits, chances[index], settings)
        if model.reset_every:
            is_fresh = (num_read + start + index) % model.reset_every == 0
            state = jax.tree.map(lambda leaf: jnp.where(is_fresh, 0.0, leaf), state)
        logits, state = model.decode_step(weights, clamp(state, settings.clamps), symbols)
        return state, logits, drawn.at[index].set(symbols)

    drawn = jnp.zeros(chances.shape, jnp.uint8, out_sharding=specify(None, axis))
    return jax.lax.fori_loop(0, count, body, (state, logits, drawn))


def draw(logits: jax.Array, chances: jax.Array, settings: Settings) -> jax.Array:
    """Draws one symbol for each column of logits [V, B]: uint8 [B].

    By inversion of the distribution function: a symbol is drawn by one random number, its place in
    [0, 1) among the probabilities laid end to end.

    Args:
      logits: [V, B] float32.
      chances: [B] float32, uniform in [0, 1).
      settings: temperature and filters.
    """
    if settings.temperature == 0:
        return jnp.argmax(logits, axis=0).astype(jnp.uint8)
    temperature, top_k, top_p = settings.temperature, settings.top_k, settings.top_p
    if top_k or top_p < 1:
        logits = filter_logits(logits.T, top_k, top_p, temperature).T
    logits = divide(logits, temperature, axis=0)
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
