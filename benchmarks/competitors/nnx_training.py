"""Trains Flax's own LSTM: a stack of `nnx.RNN(nnx.OptimizedLSTMCell)`, as a pure function."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.competitors import Competitor, jax_training
from charlstm.benchmark import shapes


class Model(nnx.Module):
    """Defines the same network: one-hot or embedded bytes, the stack, and a linear head."""

    def __init__(self, shape: shapes.Shape, inputs: str, rngs: nnx.Rngs):
        hidden, symbols = shape.hidden_size, shape.num_symbols
        self.embedding = nnx.Embed(symbols, hidden, rngs=rngs) if inputs == "embedding" else None
        self.num_symbols = symbols
        sizes = [hidden if inputs == "embedding" else symbols]
        sizes += [hidden] * (shape.num_layers - 1)
        self.layers = nnx.List(
            [
                nnx.RNN(
                    nnx.OptimizedLSTMCell(size, hidden, rngs=rngs),
                    time_major=True,
                    return_carry=True,
                )
                for size in sizes
            ]
        )
        self.head = nnx.Linear(hidden, symbols, rngs=rngs)

    def __call__(self, symbols: jax.Array, carries: list[Any]) -> tuple[jax.Array, list[Any]]:
        """Returns logits [T, B, V] and the carries after symbols [T, B]."""
        x = (
            jax.nn.one_hot(symbols, self.num_symbols)
            if self.embedding is None
            else self.embedding(symbols)
        )
        after = []
        for layer, carry in zip(self.layers, carries, strict=True):
            carry, x = layer(x, initial_carry=carry)
            after.append(carry)
        return self.head(x), after


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training; a run makes `count` updates.

    Args:
      spec: `shape` and `inputs` (one-hot, embedding).
    """
    shape = shapes.Shape(**spec["shape"])
    model = Model(shape, spec["inputs"], nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: Any, carry: Any, inputs: jax.Array, targets: jax.Array) -> Any:
        logits, carry = nnx.merge(graph, params, rest)(inputs, carry)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.mean(nats), carry

    # Each has a buffer of its own, because they are donated.
    zeros = [
        tuple(jnp.zeros((shape.num_streams, shape.hidden_size)) for _ in range(2))
        for _ in range(shape.num_layers)
    ]
    return jax_training.competitor(shape, loss, params, zeros)
