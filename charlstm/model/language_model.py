"""The byte language model: parameters, initialisation, and its application as pure functions.

Flax declares and initialises the parameters; everything hot takes the plain pytree

    {"layers": {"0": {"weight_ih", "weight_hh", "bias"}, …}, "head": {"kernel", "bias"}}

The first layer's `weight_ih` is [V, 4H]: a one-hot vector times a matrix is a look-up of a row.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from charlstm.model import recurrence
from charlstm.model.recurrence import Carry
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


class LanguageModel(nnx.Module):
    """The parameters of the whole network.

    Args:
      alphabet_size: V.
      num_layers: L.
      hidden_size: H, of every layer.
      forget_bias: initial bias of the forget gates (Jozefowicz et al. 2015 recommend 1).
      rngs: random streams for the initial values.
    """

    def __init__(
        self,
        alphabet_size: int,
        num_layers: int,
        hidden_size: int,
        forget_bias: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        sizes = [alphabet_size] + [hidden_size] * (num_layers - 1)
        self.layers = nnx.Dict(
            {
                str(index): LSTMLayer(size, hidden_size, forget_bias, one_hot=index == 0, rngs=rngs)
                for index, size in enumerate(sizes)
            }
        )
        kernel_init = nnx.initializers.normal(INIT_GAIN * hidden_size**-0.5)
        self.head = nnx.Linear(hidden_size, alphabet_size, kernel_init=kernel_init, rngs=rngs)


def init_params(
    key: jax.Array, *, alphabet_size: int, num_layers: int, hidden_size: int, forget_bias: float
) -> Params:
    """Initial parameters, float32, as a plain pytree (see the module's docstring)."""
    rngs = nnx.Rngs(params=key)
    model = LanguageModel(alphabet_size, num_layers, hidden_size, forget_bias, rngs=rngs)
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def num_parameters(params: Params) -> int:
    """How many numbers there are to learn."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def layers_of(params: Params) -> list[dict[str, jax.Array]]:
    """The layers from the bottom up."""
    return [params["layers"][str(index)] for index in range(len(params["layers"]))]


def zero_carry(params: Params, num_streams: int, axis: str | None = None) -> Carry:
    """The state before the first byte of a text: zeros [L, B, H].

    Args:
      params: the parameters, read for L and H.
      num_streams: B.
      axis: the mesh axis to split the streams over, if any.
    """
    layers = layers_of(params)
    shape = (len(layers), num_streams, layers[0]["weight_hh"].shape[0])
    zeros = partial(jnp.zeros, shape, jnp.float32, out_sharding=specify(None, axis, None))
    return {"h": zeros(), "c": zeros()}


def apply(
    params: Params,
    carry: Carry,
    symbols: jax.Array,
    masks: jax.Array | None = None,
    *,
    compute_dtype: Any = jnp.float32,
    recurrence_name: str = "scan",
) -> tuple[jax.Array, Carry]:
    """The logits of the next symbol at every place of a window.

    Args:
      params: the parameters, float32.
      carry: the state before the window.
      symbols: [T, B] uint8 or int32, below V.
      masks: dropout masks, see `dropout_masks`.
      compute_dtype: bfloat16 or float32; cell states and logits are float32 in either.
      recurrence_name: which implementation of the time loop.

    Returns:
      Logits [T, B, V] float32, and the carry after the window.
    """
    layers = layers_of(params)
    run = recurrence.get(recurrence_name)
    outputs, carry = run(layers, symbols, carry, masks, compute_dtype)
    logits = jnp.einsum(
        "tbh,hv->tbv",
        outputs,
        params["head"]["kernel"].astype(compute_dtype),
        preferred_element_type=jnp.float32,
    )
    return logits + params["head"]["bias"], carry


def dropout_masks(
    key: jax.Array, rate: float, kind: str, outputs_shape: tuple[int, ...], axis: str | None = None
) -> jax.Array | None:
    """Masks for what each layer passes to the next: 0 with probability `rate`, else 1/(1-rate).

    Args:
      key: a key of this window's own.
      rate: the share to drop; 0 gives None.
      kind: `standard`, a mask for every time step (Zaremba et al. 2014), or `locked`, one mask
        held for the window (Gal & Ghahramani 2016).
      outputs_shape: (L, T, B, H).
      axis: the mesh axis that the streams are split over, if any.

    Returns:
      [L-1, T, B, H], or [L-1, 1, B, H] if locked, float32.
    """
    num_layers, window_length, num_streams, hidden_size = outputs_shape
    if rate == 0 or num_layers == 1:
        return None
    steps = window_length if kind == "standard" else 1
    shape = (num_layers - 1, steps, num_streams, hidden_size)
    keep = jax.random.bernoulli(key, 1 - rate, shape, out_sharding=specify(None, None, axis, None))
    return keep / jnp.float32(1 - rate)


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
