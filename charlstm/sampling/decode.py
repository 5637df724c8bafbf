"""The decode loop: a prompt is read once, then any number of texts go on from it."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.runtime.shardings import specify
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws, Given, Loaded, Texts, advance, fresh

# Symbols drawn in one call: few at first, so that text shows at once.
FIRST_CHUNK, LARGEST_CHUNK = 4, 128


class Prefix(NamedTuple):
    """A text that was read, ready to be continued any number of times.

    Attributes:
      texts: what the model knows of it, a single column.
      num_read: how many bytes it has.
    """

    texts: Texts
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
        """Reads symbols, uint8 [P]; P ≥ 1.

        Args:
          loaded: of `load`.
          prompt: the symbols.
          after: what was read before them.
        """
        num_before = 0 if after is None else after.num_read
        num_read = num_before + len(prompt)
        reset_every = loaded.model.reset_every
        if reset_every:  # what was read before the last reset has left no trace
            last_reset = (num_read - 1) // reset_every * reset_every
            if last_reset >= num_before:
                prompt, after = prompt[last_reset - num_before :], None
        if after is None:
            texts = fresh(loaded, 1)
            texts = texts._replace(num_read=texts.num_read + (num_read - len(prompt)))
        else:
            texts = _spread(after.texts, 1, None)
        draws = Draws.alike(1, self._settings, 0)
        for begin in range(0, len(prompt), LARGEST_CHUNK):
            chunk = prompt[begin : begin + LARGEST_CHUNK, None]
            symbols = np.pad(chunk, ((0, LARGEST_CHUNK - len(chunk)), (0, 0)))
            given = Given(symbols, np.full(1, len(chunk), np.int32), np.int32(0))
            texts = self._advance(loaded, texts, given, draws, len(chunk))[0]
        return Prefix(texts, num_read)

    def draw(
        self, loaded: Loaded, prefix: Prefix, num_symbols: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yields what follows what was read, uint8 [B, n] at a time."""
        texts = _spread(prefix.texts, self._batch, self._axis)
        draws = self._split(Draws.alike(self._batch, self._settings, seed))
        symbols = np.zeros((LARGEST_CHUNK, self._batch), np.uint8)
        nothing = self._split(Given(symbols, np.zeros(self._batch, np.int32), None))
        drawn, length = 0, FIRST_CHUNK
        while drawn < num_symbols:
            count = min(length, num_symbols - drawn)
            given = nothing._replace(num_drawn=np.int32(drawn))
            texts, read, _ = self._advance(loaded, texts, given, draws, count)
            yield np.asarray(read)[:count].T
            drawn, length = drawn + count, min(2 * length, LARGEST_CHUNK)

    def _advance(
        self, loaded: Loaded, texts: Texts, given: Given, draws: Draws, count: int
    ) -> tuple[Texts, jax.Array, None]:
        settings = self._settings
        options = {"filters": settings.filters, "clamps": settings.clamps}
        return advance(loaded, texts, given, draws, np.int32(count), **options)

    def _split(self, arrays: Any) -> Any:
        if self._axis is None:
            return arrays
        specs = jax.tree.map(lambda a: jax.P(*[None] * (a.ndim - 1), self._axis), arrays)
        return jax.device_put(arrays, specs)


@functools.partial(jax.jit, static_argnames=("count", "axis"))
def _spread(texts: Texts, count: int, axis: str | None) -> Texts:
    """Returns `count` copies of a text."""

    def copies(leaf: jax.Array) -> jax.Array:
        shape = (*leaf.shape[:-1], count)
        spec = specify(*[None] * (leaf.ndim - 1), axis)
        return jnp.broadcast_to(leaf, shape, out_sharding=spec)

    return jax.tree.map(copies, texts)
