"""The parameters of a network: their declaration, their initial values, and what is read off them.

Flax declares and initializes the parameters; everything hot takes the plain pytree

    {"layers": {"0": {"weight_ih", "weight_hh", "bias"}, …}, "head": {"kernel", "bias"}}

with gates in the order i, f, g, o along the last axis. The first layer's `weight_ih` is [V, 4H]: a
one-hot vector times a matrix is a look-up of a row. With an `embedding` [V, E] beside the layers it
is [E, 4H]. A cell may add vectors to each layer (`Cell.vectors`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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


class LayerParameters(nnx.Module):
    """Declares the parameters of one layer.

    Args:
      cell: of the layer.
      input_size: F.
      hidden_size: H.
      forget_bias: initial bias of the forget gates.
      one_hot: True if the input is a one-hot vector.
      rngs: random streams for the initial values.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        forget_bias: float,
        *,
        one_hot: bool,
        rngs: nnx.Rngs,
    ):
        # Of a one-hot input a single row counts, of another all of them.
        deviation = INIT_GAIN if one_hot else INIT_GAIN * input_size**-0.5
        input_init = nnx.initializers.normal(deviation)
        self.weight_ih = nnx.Param(input_init(rngs.params(), (input_size, 4 * hidden_size)))
        gate_init = nnx.initializers.orthogonal()
        recurrent = [gate_init(rngs.params(), (hidden_size, hidden_size)) for _ in range(4)]
        self.weight_hh = nnx.Param(jnp.concatenate(recurrent, axis=1))
        bias = jnp.zeros(4 * hidden_size).at[hidden_size : 2 * hidden_size].set(forget_bias)
        self.bias = nnx.Param(bias)
        for name, (multiple, value) in cell.vectors.items():
            setattr(self, name, nnx.Param(jnp.full(multiple * hidden_size, value)))


class Parameters(nnx.Module):
    """Declares the parameters of the whole network.

    Args:
      model: the sizes L, H and E; the forget gates' initial bias (Jozefowicz et al. 2015 recommend
        1); whether layers normalize.
      alphabet_size: V.
      rngs: random streams for the initial values.
    """

    def __init__(self, model: ModelConfig, alphabet_size: int, *, rngs: nnx.Rngs):
        hidden_size, embedding_size = model.hidden_size, model.embedding_size
        sizes = [embedding_size or alphabet_size] + [hidden_size] * (model.num_layers - 1)
        self.layers = nnx.Dict(
            {
                str(index): LayerParameters(
                    cell_for(model.layer_norm),
                    size,
                    hidden_size,
                    model.forget_bias,
                    one_hot=index == 0 and embedding_size == 0,
                    rngs=rngs,
                )
                for index, size in enumerate(sizes)
            }
        )
        kernel_init = nnx.initializers.normal(INIT_GAIN * hidden_size**-0.5)
        self.head = nnx.Linear(hidden_size, alphabet_size, kernel_init=kernel_init, rngs=rngs)
        if embedding_size:
            # Of deviation 1, so that the first layer's pre-activations have INIT_GAIN's.
            embedding = jax.random.normal(rngs.params(), (alphabet_size, embedding_size))
            self.embedding = nnx.Param(embedding)


def init_params(key: jax.Array, model: ModelConfig, alphabet_size: int) -> Params:
    """Returns the parameters before the first update, float32, as a plain pytree."""
    declared = Parameters(model, alphabet_size, rngs=nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.state(declared, nnx.Param))


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
