"""The parameters of a network: their declaration, their initial values, and what is read off them.

Flax declares and initializes the parameters; everything hot takes the plain pytree

    {"layers": {"0": {"weight_ih", "weight_hh", "bias"}, …}, "head": {"kernel", "bias"}}

with gates in the order i, f, g, o along the last axis. The first layer's `weight_ih` is [V, 4H]: a
one-hot vector times a matrix is a look-up of a row. With an `embedding` [V, E] beside the layers it
is [E, 4H]. A cell may add vectors to each layer (`Cell.vectors`).
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import normal, orthogonal

from charlstm.config import ModelConfig
from charlstm.model.cell import Cell, Layer, cell_for
from charlstm.model.stack import Carry
from charlstm.runtime.shardings import specify

Params = dict[str, Any]

# Standard deviation of the first layer's pre-activations and, times 1/√H, of the other layers'
# weight_ih and of the head. Inputs that drive the gates from the first update on save many updates:
# after 500 of them a 1 × 256 model of Shakespeare was at 2.43 bits per byte with a gain of 2, at
# 2.70 with a gain of 1, and at 3.40 with 1/√H for the one-hot rows too.
INIT_GAIN = 2.0


Keys = Iterator[jax.Array]


class LayerParameters(nn.Module):
    """Declares the parameters of one layer.

    Attributes:
      cell: of the layer.
      input_size: F.
      hidden_size: H.
      forget_bias: initial bias of the forget gates.
      one_hot: True if the input is a one-hot vector.
    """

    cell: Cell
    input_size: int
    hidden_size: int
    forget_bias: float
    one_hot: bool

    @nn.compact
    def __call__(self, keys: Keys) -> None:
        """Makes their initial values; each random one takes the next of `keys`."""
        hidden_size = self.hidden_size
        # Of a one-hot input a single row counts, of another all of them.
        deviation = INIT_GAIN if self.one_hot else INIT_GAIN * self.input_size**-0.5

        def weight_ih(_: Any) -> jax.Array:
            return normal(deviation)(next(keys), (self.input_size, 4 * hidden_size))

        def weight_hh(_: Any) -> jax.Array:
            gates = [orthogonal()(next(keys), (hidden_size, hidden_size)) for _ in range(4)]
            return jnp.concatenate(gates, axis=1)

        def bias(_: Any) -> jax.Array:
            zeros = jnp.zeros(4 * hidden_size)
            return zeros.at[hidden_size : 2 * hidden_size].set(self.forget_bias)

        self.param("weight_ih", weight_ih)
        self.param("weight_hh", weight_hh)
        self.param("bias", bias)
        for name, (multiple, value) in self.cell.vectors.items():
            self.param(
                name, lambda _, size, value: jnp.full(size, value), multiple * hidden_size, value
            )


class Layers(nn.Module):
    """Declares the parameters of the layers; for `model` and `alphabet_size` see `Parameters`."""

    model: ModelConfig
    alphabet_size: int

    @nn.compact
    def __call__(self, keys: Keys) -> None:
        """See `LayerParameters`."""
        model, cell = self.model, cell_for(self.model.layer_norm)
        sizes = [model.embedding_size or self.alphabet_size]
        sizes += [model.hidden_size] * (model.num_layers - 1)
        for index, size in enumerate(sizes):
            one_hot = index == 0 and model.embedding_size == 0
            layer = (cell, size, model.hidden_size, model.forget_bias, one_hot)
            LayerParameters(*layer, name=str(index))(keys)


class Head(nn.Module):
    """Declares the parameters of the head, a dense layer from H outputs to V logits."""

    hidden_size: int
    alphabet_size: int

    @nn.compact
    def __call__(self, keys: Keys) -> None:
        """See `LayerParameters`."""
        shape = self.hidden_size, self.alphabet_size
        kernel_init = normal(INIT_GAIN * self.hidden_size**-0.5)
        self.param("kernel", lambda _: kernel_init(next(keys), shape))
        next(keys)  # the bias took one once, and a seed keeps its meaning
        self.param("bias", lambda _: jnp.zeros(self.alphabet_size))


class Parameters(nn.Module):
    """Declares the parameters of the whole network.

    Attributes:
      model: the sizes L, H and E; the forget gates' initial bias (Jozefowicz et al. 2015 recommend
        1); whether layers normalize.
      alphabet_size: V.
    """

    model: ModelConfig
    alphabet_size: int

    @nn.compact
    def __call__(self, keys: Keys) -> None:
        """See `LayerParameters`."""
        Layers(self.model, self.alphabet_size, name="layers")(keys)
        Head(self.model.hidden_size, self.alphabet_size, name="head")(keys)
        if self.model.embedding_size:
            # Of deviation 1, so that the first layer's pre-activations have INIT_GAIN's.
            shape = self.alphabet_size, self.model.embedding_size
            self.param("embedding", lambda _: jax.random.normal(next(keys), shape))


def init_params(key: jax.Array, model: ModelConfig, alphabet_size: int) -> Params:
    """Returns the parameters before the first update, float32, as a plain pytree."""
    keys = (jax.random.fold_in(key, place) for place in itertools.count())
    params: Params = Parameters(model, alphabet_size).init(key, keys)["params"]
    return params


def abstract_params(model: ModelConfig, alphabet_size: int) -> Params:
    """Returns the shapes and dtypes of `init_params`, `jax.ShapeDtypeStruct` each."""
    return jax.eval_shape(lambda key: init_params(key, model, alphabet_size), jax.random.key(0))


def num_parameters(params: Params) -> int:
    """Returns how many numbers there are to learn."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def layers_of(params: Params) -> list[Layer]:
    """Returns the layers from the bottom up; the first looks symbols up in its `weight_ih` [V, 4H].

    Of a network with an embedding, that is the product of the two: whatever follows symbols through
    the network need not know of the embedding.
    """
    layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
    if "embedding" in params:
        table = jnp.matmul(params["embedding"], layers[0]["weight_ih"])
        layers[0] = layers[0] | {"weight_ih": table}
    return layers


def stack_shape(params: Params) -> tuple[int, int]:
    """Returns L and H."""
    layers = params["layers"]
    return len(layers), layers["0"]["weight_hh"].shape[0]


def zero_carry(params: Params, num_streams: int, axis: str | None = None) -> Carry:
    """Returns the state before the first byte of a text: zeros [L, B, H].

    Args:
      params: the parameters, read for L and H.
      num_streams: B.
      axis: the mesh axis to split the streams over, if any.
    """
    num_layers, hidden_size = stack_shape(params)
    shape = (num_layers, num_streams, hidden_size)
    spec = specify(None, axis, None)
    h, c = (jnp.zeros(shape, jnp.float32, out_sharding=spec) for _ in range(2))
    return {"h": h, "c": c}
