"""Dropout of inputs, of what passes between layers, of outputs, and of recurrent weights.

Values that are kept are scaled up by as much as is dropped on average, so that nothing need be
scaled afterwards. Masks are drawn under a key of the window's own and split like what they act on:
they depend neither on the number of devices nor on how a run was cut into dispatches.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.runtime.shardings import dimension, specify

Layers = list[Any]  # of `cell.Layer`


@dataclasses.dataclass(frozen=True)
class Dropped:
    """The masks of one window; None where nothing is dropped.

    Factors are 0 where dropped, else 1/(1-rate). T is 1 in a mask that is held for the window.
    """

    kept_symbols: jax.Array | None = None  # bool [T, B], of one-hot inputs: which are kept
    symbol_scale: float = 1.0  # the factor on those
    input: jax.Array | None = None  # [T, B, E], factors on an embedding's vectors
    between: jax.Array | None = None  # [L-1, T, B, H], on what each layer passes to the next
    output: jax.Array | None = None  # [T, B, H], on what the head reads
    weights: list[jax.Array] | None = None  # of each layer [H, 4H], on weight_hh

    def one_hot(self, layers: Layers, symbols: jax.Array) -> tuple[Layers, jax.Array]:
        """Returns layers and symbols with which a dropped symbol adds nothing to the first layer.

        It looks up row V, which the first layer's table is given and which is zero; the other rows
        are scaled. So every recurrence knows how to drop symbols.
        """
        if self.kept_symbols is None:
            return layers, symbols
        table = layers[0]["weight_ih"]
        symbols = jnp.where(self.kept_symbols, symbols.astype(jnp.int32), table.shape[0])
        rows = jnp.concatenate([table * self.symbol_scale, jnp.zeros_like(table[:1])])
        return [layers[0] | {"weight_ih": rows}, *layers[1:]], symbols

    def recurrent(self, layers: Layers) -> Layers:
        """Returns the layers with the recurrent weights that are left."""
        if self.weights is None:
            return layers
        return [
            layer | {"weight_hh": layer["weight_hh"] * mask}
            for layer, mask in zip(layers, self.weights, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Rates of dropout, at least 0 and below 1."""

    input: float = 0.0
    between: float = 0.0
    output: float = 0.0
    weights: float = 0.0
    # standard: a mask for every time step (Zaremba et al. 2014); locked: one mask held for the
    # window (Gal & Ghahramani 2016). That of weights is held in any case (Merity et al. 2018).
    kind: str = "standard"

    def draw(
        self, key: jax.Array, params: dict[str, Any], symbols: jax.Array, axis: str | None = None
    ) -> Dropped | None:
        """Draws the masks of a window; returns None if nothing is dropped.

        Args:
          key: of this window's own.
          params: read for shapes, and for how weights are split.
          symbols: [T, B].
          axis: the mesh axis that the streams are split over, if any.
        """
        if not (self.input or self.between or self.output or self.weights):
            return None
        of_input, of_output, of_weights = (jax.random.fold_in(key, place) for place in range(1, 4))
        layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
        hidden_size = layers[0]["weight_hh"].shape[0]
        steps = symbols.shape[0] if self.kind == "standard" else 1
        by_step = (steps, symbols.shape[1])
        masks: dict[str, Any] = {}
        shape: tuple[int, ...]
        if self.between and len(layers) > 1:
            shape = (len(layers) - 1, *by_step, hidden_size)
            masks["between"] = _factors(key, self.between, shape, None, None, axis, None)
        if self.input and "embedding" in params:
            shape = (*by_step, params["embedding"].shape[1])
            masks["input"] = _factors(of_input, self.input, shape, None, axis, None)
        elif self.input:
            masks["kept_symbols"] = self._kept(of_input, symbols, params, axis)
            masks["symbol_scale"] = 1 / (1 - self.input)
        if self.output:
            shape = (*by_step, hidden_size)
            masks["output"] = _factors(of_output, self.output, shape, None, axis, None)
        if self.weights:
            masks["weights"] = [
                _factors(
                    jax.random.fold_in(of_weights, index),
                    self.weights,
                    layer["weight_hh"].shape,
                    dimension(layer["weight_hh"], 0),
                    dimension(layer["weight_hh"], 1),
                )
                for index, layer in enumerate(layers)
            ]
        return Dropped(**masks)

    def _kept(
        self, key: jax.Array, symbols: jax.Array, params: dict[str, Any], axis: str | None
    ) -> jax.Array:
        """Draws bool [T, B]: each place by itself; locked: a stream's symbols for the window."""
        if self.kind == "standard":
            spec = specify(None, axis)
            return jax.random.bernoulli(key, 1 - self.input, symbols.shape, out_sharding=spec)
        shape = (symbols.shape[1], params["layers"]["0"]["weight_ih"].shape[0])
        spec = specify(axis, None)
        kept = jax.random.bernoulli(key, 1 - self.input, shape, out_sharding=spec)
        is_symbol = symbols[..., None].astype(jnp.int32) == jnp.arange(shape[1])
        return jnp.any(is_symbol & kept, axis=-1)


def _factors(
    key: jax.Array, rate: float, shape: tuple[int, ...], *split: str | tuple[str, ...] | None
) -> jax.Array:
    """Draws float32 factors, each 0 with probability `rate`, split over mesh axes by `split`."""
    keep = jax.random.bernoulli(key, 1 - rate, shape, out_sharding=specify(*split))
    return keep / jnp.float32(1 - rate)
