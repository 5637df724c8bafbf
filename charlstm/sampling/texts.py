"""B texts that a model reads and continues side by side, and the program that advances them.

A text is a column: what becomes of it is read off its own column of every array, so it does not
matter which other texts stand beside it. In every time step a text either reads a symbol that is
given or draws the next one and reads that. It costs one step of the network on weights that were
laid out once, see `model.decode_step`.
"""

import functools
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

from charlstm.model.decode_step import DecodeState, DecodeWeights
from charlstm.model.language_model import LanguageModel
from charlstm.runtime.shardings import dimension, specify
from charlstm.sampling.clamping import Clamp, clamp
from charlstm.sampling.filters import filter_logits, in_range, tempered
from charlstm.sampling.settings import Settings


class Loaded(NamedTuple):
    """A model ready to draw from; see `load`."""

    model: LanguageModel
    weights: DecodeWeights


def load(model: LanguageModel) -> Loaded:
    """Lays a model's parameters out for drawing: once for any number of calls."""
    return Loaded(model.replace(params={}), _lay_out(model))


@jax.jit
def _lay_out(model: LanguageModel) -> DecodeWeights:
    return model.decode_weights()


class Texts(NamedTuple):
    """Holds the state of a model after B texts.

    Attributes:
      state: after them.
      logits: of what comes next, [V, B] float32.
      num_read: symbols read of each, [B] int32.
    """

    state: DecodeState
    logits: jax.Array
    num_read: jax.Array


class Draws(NamedTuple):
    """Says how the symbols of B texts are drawn: an array of each setting.

    Attributes:
      seed: [B] uint32.
      lane: [B] uint32, which of the texts of its seed each one is.
      temperature: [B] float32, see `filters.in_range`.
      top_k, top_p: [B] int32 and float32, see `filter_logits`.
    """

    seed: Any
    lane: Any
    temperature: Any
    top_k: Any
    top_p: Any

    @classmethod
    def alike(cls, count: int, settings: Settings, seed: int) -> Self:
        """Returns those of `count` texts of one seed."""
        return cls(
            np.full(count, seed, np.uint32),
            np.arange(count, dtype=np.uint32),
            np.full(count, in_range(settings.temperature)),
            np.full(count, min(settings.top_k, 2**30), np.int32),
            np.full(count, settings.top_p, np.float32),
        )


class Given(NamedTuple):
    """Holds the symbols that B texts read in a call before they draw.

    Attributes:
      symbols: [N, B] uint8; N is the most time steps of a call.
      count: [B] int32, how many of them each text reads.
      num_drawn: [B] int32 or a scalar, how many symbols of each were drawn in calls before.
      begins: [B] bool, True where a new text begins, whatever stood there; None for none.
    """

    symbols: Any
    count: Any
    num_drawn: Any
    begins: Any = None


class Record(NamedTuple):
    """Records the predictions and cell states of B texts at each of N time steps.

    Attributes:
      logits: [N, V, B] float32, before the symbol was read.
      cells: [N, M, B] float32, the states c of M cells after it.
    """

    logits: jax.Array
    cells: jax.Array


@functools.partial(jax.jit, static_argnames=("count",))
def fresh(loaded: Loaded, count: int) -> Texts:
    """Returns texts of which nothing was read."""
    num_symbols, _ = loaded.weights.head.shape
    shape = [weight.shape[0] // 4 for weight in loaded.weights.layers]
    h, c = ([jnp.zeros((size, count), jnp.float32) for size in shape] for _ in range(2))
    logits = jnp.zeros((num_symbols, count), jnp.float32)
    return Texts(DecodeState(h, c), logits, jnp.zeros(count, jnp.int32))


@functools.partial(
    jax.jit, static_argnames=("filters", "clamps"), donate_argnames="texts", inline=False
)
def advance(
    loaded: Loaded,
    texts: Texts,
    given: Given,
    draws: Draws,
    num_steps: jax.Array,
    cells: jax.Array | None = None,
    *,
    filters: bool = False,
    clamps: tuple[Clamp, ...] = (),
) -> tuple[Texts, jax.Array, Record | None]:
    """Advances B texts by up to N time steps.

    Args:
      loaded: of `load`.
      texts: before; used up.
      given: what they read before they draw.
      draws: how they draw.
      num_steps: how many time steps, at most N.
      cells: [M, B] int32, of each text those to record, layer by layer; None records nothing.
      filters: False if no text has a `top_k` or a `top_p`, which is faster.
      clamps: cells held at values, in every text.

    Returns:
      The texts after; the symbols that they read, [N, B] uint8, of which the first `num_steps` rows
      count; and the record, if one is wanted.
    """
    model, weights = loaded
    if given.begins is not None:
        texts = jax.tree.map(lambda leaf: jnp.where(given.begins, 0, leaf), texts)
    size, num_read = given.symbols.shape[0], texts.num_read
    axis = dimension(texts.logits, 1)
    # A symbol's place in its text decides on its random number: how calls are cut does not matter.
    places = jnp.arange(size, dtype=jnp.int32)[:, None] + (given.num_drawn - given.count)[None]
    chances = _chances(draws.seed, draws.lane, places)

    def body(index: jax.Array, loop: Any) -> Any:
        before, state, read, record = loop
        drawn = draw(before, chances[index], draws, filters)
        symbols = jnp.where(index < given.count, given.symbols[index], drawn)
        if model.reset_every:
            is_fresh = (num_read + index) % model.reset_every == 0
            state = jax.tree.map(lambda leaf: jnp.where(is_fresh, 0.0, leaf), state)
        stepped = model.decode_step(weights, clamp(state, clamps), symbols)
        # What else is computed must not change how: every program has the same time step.
        logits, state = jax.lax.optimization_barrier(stepped)
        if record is not None and cells is not None:
            states = jnp.take_along_axis(jnp.concatenate(state.c), cells, axis=0)
            record = Record(record.logits.at[index].set(before), record.cells.at[index].set(states))
        return logits, state, read.at[index].set(symbols), record

    def zeros(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
        spec = specify(*[None] * (len(shape) - 1), axis)
        return jnp.zeros(shape, dtype, out_sharding=spec)

    record = None
    if cells is not None:
        record = Record(zeros(size, *texts.logits.shape), zeros(size, *cells.shape))
    read = zeros(*given.symbols.shape, dtype=jnp.uint8)
    logits, state, read, record = jax.lax.fori_loop(
        0, num_steps, body, (texts.logits, texts.state, read, record)
    )
    return Texts(state, logits, num_read + num_steps), read, record


def _chances(seed: jax.Array, lane: jax.Array, places: jax.Array) -> jax.Array:
    """Returns random numbers in [0, 1), [N, B] float32, for symbols at places [N, B].

    Lane b of a seed has number b of `jax.random.uniform(fold_in(key(seed), place), …)`, which are
    hashes (Threefry, Salmon et al. 2011).
    """
    zero = jnp.zeros(places.shape, jnp.uint32) + jnp.zeros_like(lane)
    hashed = threefry2x32_p.bind(zero, zero + seed, zero, places.astype(jnp.uint32))
    first, second = threefry2x32_p.bind(*hashed, zero, zero + lane)
    mantissa = ((first ^ second) >> 9) | jnp.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(mantissa, jnp.float32) - 1


def draw(logits: jax.Array, chances: jax.Array, draws: Draws, filters: bool = True) -> jax.Array:
    """Draws one symbol for each column of logits [V, B]: uint8 [B].

    By inversion of the distribution function: a symbol is drawn by one random number, its place in
    [0, 1) among the probabilities laid end to end.

    Args:
      logits: [V, B] float32.
      chances: [B] float32, uniform in [0, 1).
      draws: the settings of each column.
      filters: False if none has a `top_k` or a `top_p`.
    """
    temperature = draws.temperature
    if filters:
        logits = filter_logits(logits, draws.top_k, draws.top_p, temperature)
    weights = jnp.exp(tempered(logits, temperature))
    # A symbol without weight is never drawn, however the sums are rounded.
    ends = jnp.where(weights > 0, jnp.cumsum(weights, axis=0), 0)
    chances = jnp.where(temperature == 0, 0, chances)  # the first of the likeliest
    return jnp.argmax(ends > chances * jnp.max(ends, axis=0), axis=0).astype(jnp.uint8)
