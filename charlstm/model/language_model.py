"""The byte language model: parameters, initialisation, and its application as pure functions.

Flax declares and initialises the parameters; everything hot takes the plain pytree

    {"layers": {"0": {"weight_ih", "weight_hh", "bias"}, …}, "head": {"kernel", "bias"}}

The first layer's `weight_ih` is [V, 4H]: a one-hot vector times a matrix is a look-up of a row.
With an `embedding` [V, E] beside the layers it is [E, 4H]. With layer normalisation each layer has
`gain_ih` and `gain_hh` [4H], `gain_c` and `bias_c` [H] as well.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from charlstm.model import recurrence
from charlstm.model.dropout import Dropped
from charlstm.model.recurrence import Carry
from charlstm.model.recurrence.look_up import look_up
from charlstm.sharding import specify

Params = dict[str, Any]


# Standard deviation of the first layer's pre-activations and, times 1/√H, of the other layers'
# weight_ih and of the head. Inputs that drive the gates from the first update on save many updates:
# after 500 of them a 1 × 256 model of Shakespeare was at 2.43 bits per byte with a gain of 2, at
# 2.70 with a gain of 1, and at 3.40 with 1/√H for the one-hot rows too.
INIT_GAIN = 2.0


class LSTMLayer(nnx.Module):
    """The parameters of one layer, gates in the order i, f, g, o along the last axis."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        forget_bias: float,
        *,
        one_hot: bool,
        layer_norm: bool = False,
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
        if layer_norm:
            self.gain_ih = nnx.Param(jnp.ones(4 * hidden_size))
            self.gain_hh = nnx.Param(jnp.ones(4 * hidden_size))
            self.gain_c = nnx.Param(jnp.ones(hidden_size))
            self.bias_c = nnx.Param(jnp.zeros(hidden_size))


class LanguageModel(nnx.Module):
    """The parameters of the whole network.

    Args:
      alphabet_size: V.
      num_layers: L.
      hidden_size: H, of every layer.
      forget_bias: initial bias of the forget gates (Jozefowicz et al. 2015 recommend 1).
      embedding_size: E, of the vectors that stand for symbols; 0: symbols are one-hot.
      layer_norm: whether the layers normalise (Ba, Kiros & Hinton 2016).
      rngs: random streams for the initial values.
    """

    def __init__(
        self,
        alphabet_size: int,
        num_layers: int,
        hidden_size: int,
        forget_bias: float = 1.0,
        embedding_size: int = 0,
        layer_norm: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        def layer(index: int, input_size: int) -> LSTMLayer:
            one_hot = index == 0 and embedding_size == 0
            return LSTMLayer(
                input_size,
                hidden_size,
                forget_bias,
                one_hot=one_hot,
                layer_norm=layer_norm,
                rngs=rngs,
            )

        sizes = [embedding_size or alphabet_size] + [hidden_size] * (num_layers - 1)
        self.layers = nnx.Dict({str(index): layer(index, size) for index, size in enumerate(sizes)})
        kernel_init = nnx.initializers.normal(INIT_GAIN * hidden_size**-0.5)
        self.head = nnx.Linear(hidden_size, alphabet_size, kernel_init=kernel_init, rngs=rngs)
        if embedding_size:
            # Of deviation 1, so that the first layer's pre-activations have INIT_GAIN's.
            embedding = jax.random.normal(rngs.params(), (alphabet_size, embedding_size))
            self.embedding = nnx.Param(embedding)


def init_params(
    key: jax.Array,
    *,
    alphabet_size: int,
    num_layers: int,
    hidden_size: int,
    forget_bias: float,
    embedding_size: int = 0,
    layer_norm: bool = False,
) -> Params:
    """Initial parameters, float32, as a plain pytree; for the arguments see `LanguageModel`."""
    model = LanguageModel(
        alphabet_size,
        num_layers,
        hidden_size,
        forget_bias,
        embedding_size,
        layer_norm,
        rngs=nnx.Rngs(params=key),
    )
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def num_parameters(params: Params) -> int:
    """How many numbers there are to learn."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def layers_of(params: Params) -> list[dict[str, jax.Array]]:
    """The layers from the bottom up, the first of which looks symbols up in `weight_ih` [V, 4H].

    Of a model with an embedding that is the product of the two: all that follows symbols through
    the network can do without knowing of the embedding.
    """
    layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
    if "embedding" in params:
        table = jnp.matmul(params["embedding"], layers[0]["weight_ih"])
        layers[0] = layers[0] | {"weight_ih": table}
    return layers


def stack_shape(params: Params) -> tuple[int, int]:
    """L and H."""
    layers = params["layers"]
    return len(layers), layers["0"]["weight_hh"].shape[0]


def is_normalised(params: Params) -> bool:
    """Whether the layers normalise (`model.layer_norm`)."""
    return "gain_hh" in params["layers"]["0"]


def zero_carry(params: Params, num_streams: int, axis: str | None = None) -> Carry:
    """The state before the first byte of a text: zeros [L, B, H].

    Args:
      params: the parameters, read for L and H.
      num_streams: B.
      axis: the mesh axis to split the streams over, if any.
    """
    num_layers, hidden_size = stack_shape(params)
    shape = (num_layers, num_streams, hidden_size)
    zeros = partial(jnp.zeros, shape, jnp.float32, out_sharding=specify(None, axis, None))
    return {"h": zeros(), "c": zeros()}


def apply(
    params: Params,
    carry: Carry,
    symbols: jax.Array,
    *,
    compute_dtype: Any = jnp.float32,
    recurrence_name: str = "scan",
) -> tuple[jax.Array, Carry]:
    """The logits of the next symbol at every place of a window, nothing dropped.

    Args:
      params: the parameters, float32.
      carry: the state before the window.
      symbols: [T, B] uint8 or int32, below V.
      compute_dtype: bfloat16 or float32; cell states and logits are float32 in either.
      recurrence_name: which implementation of the time loop.

    Returns:
      Logits [T, B, V] float32, and the carry after the window.
    """
    outputs, carry = outputs_of(
        params, carry, symbols, compute_dtype=compute_dtype, recurrence_name=recurrence_name
    )
    return logits_of(params, outputs), carry


def outputs_of(
    params: Params,
    carry: Carry,
    symbols: jax.Array,
    dropped: Dropped | None = None,
    *,
    compute_dtype: Any = jnp.float32,
    recurrence_name: str = "scan",
) -> tuple[jax.Array, Carry]:
    """What the stack has for the head to read, [T, B, H] in the compute dtype; the carry after.

    Args:
      dropped: what is dropped within the stack; see `apply` for the other arguments.
    """
    run = recurrence.get(recurrence_name)
    if dropped is None:
        return run(layers_of(params), symbols, carry, None, compute_dtype)
    if "embedding" in params and dropped.input is not None:
        # No table stands for an embedding that differs from stream to stream.
        layers = layers_of({"layers": params["layers"]})
        vectors = look_up(params["embedding"].astype(compute_dtype), symbols)
        inputs = vectors * dropped.input.astype(compute_dtype)
    else:
        layers, inputs = dropped.one_hot(layers_of(params), symbols)
    return run(dropped.recurrent(layers), inputs, carry, dropped.between, compute_dtype)


def logits_of(params: Params, outputs: jax.Array) -> jax.Array:
    """The head: logits [T, B, V] float32 of outputs [T, B, H] in the compute dtype."""
    logits = jnp.einsum(
        "tbh,hv->tbv",
        outputs,
        params["head"]["kernel"].astype(outputs.dtype),
        preferred_element_type=jnp.float32,
    )
    return logits + params["head"]["bias"]


def next_symbol_nats(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How surprising each next symbol was.

    Args:
      logits: [T, B, V] float32.
      targets: [T, B], the symbols that came.

    Returns:
      Negative log-likelihoods [T, B] in nats, float32, and whether the likeliest symbol was
      the one that came [T, B], bool.
    """
    is_target = targets[..., None].astype(jnp.int32) == jnp.arange(logits.shape[-1])
    target_logits = jnp.sum(logits, axis=-1, where=is_target)
    nats = jax.nn.logsumexp(logits, axis=-1) - target_logits
    return nats, target_logits >= jnp.max(logits, axis=-1)
