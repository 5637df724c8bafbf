"""Trains an LSTM as one would first write it in JAX: one scan, automatic differentiation.

Nothing is hoisted out of the loop over time, and no gradient is written by hand. In float64 it is
also the reference that the fast recurrences are compared with.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.competitors import Competitor, jax_training
from charlstm.benchmark import shapes
from charlstm.config import ModelConfig
from charlstm.model import parameters


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training in float32; a run makes `count` updates of the model of `shape`."""
    shape = shapes.Shape(**spec["shape"])
    model = ModelConfig(num_layers=shape.num_layers, hidden_size=shape.hidden_size, forget_bias=1.0)
    params = parameters.init_params(jax.random.key(0), model, shape.num_symbols)
    carry = parameters.zero_carry(params, shape.num_streams)
    return jax_training.competitor(shape, loss, params, carry)


def loss(
    params: Any, carry: Any, inputs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean nats of targets [T, B] after inputs [T, B], and the carry after them.

    Args:
      params: as `charlstm.model.parameters` has them, of any dtype.
      carry: {"h", "c"} [L, B, H].
      inputs, targets: symbols.
    """
    layers = parameters.layers_of(params)
    dtype, num_symbols = layers[0]["weight_hh"].dtype, layers[0]["weight_ih"].shape[0]

    def step(carry: dict[str, jax.Array], symbols: jax.Array) -> Any:
        x = jax.nn.one_hot(symbols, num_symbols, dtype=dtype)
        return time_step(layers, x, carry)

    carry, outputs = jax.lax.scan(step, carry, inputs)
    logits = outputs @ params["head"]["kernel"] + params["head"]["bias"]
    scores = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
    return -jnp.mean(scores), carry


def time_step(
    layers: Sequence[Mapping[str, Any]],
    x: jax.Array,
    carry: dict[str, jax.Array],
    before: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Makes one time step of the stack.

    Args:
      layers: from the bottom up.
      x: the first layer's input [B, F].
      carry: {"h", "c"} [L, B, H].
      before: a function `before(layer, x, h)` that changes a layer's input and last output.

    Returns:
      The carry after it, and the top layer's output [B, H].
    """
    h_all, c_all = [], []
    for layer, h, c in zip(layers, carry["h"], carry["c"], strict=True):
        if before is not None:
            x, h = before(layer, x, h)
        z = x @ layer["weight_ih"] + h @ layer["weight_hh"] + layer["bias"]
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        x = h = jax.nn.sigmoid(o) * jnp.tanh(c)
        h_all.append(h)
        c_all.append(c)
    return {"h": jnp.stack(h_all), "c": jnp.stack(c_all)}, x
