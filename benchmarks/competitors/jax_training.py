"""Trains the competitors that are written in JAX, all in the same loop, in its best form."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.benchmark import shapes

# (parameters, carry, inputs [T, B], targets [T, B]) → (mean nats, carry after the window)
Loss = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


def competitor(shape: shapes.Shape, loss: Loss, params: Any, carry: Any) -> Competitor:
    """Trains with `loss`: jitted, many updates in one call, state donated, text on the device.

    A run makes `count` updates.
    """
    adam = optax.adam(shapes.LEARNING_RATE, b1=shapes.BETA_1, b2=shapes.BETA_2, eps=shapes.EPSILON)
    optimizer = optax.chain(optax.clip_by_global_norm(shapes.CLIP_NORM), adam)
    text = jnp.asarray(workloads.symbols_of(shape))
    first = jnp.arange(shape.num_streams) * (len(text) // shape.num_streams)
    places = first + jnp.arange(shape.window_length + 1)[:, None]

    def dispatch(state: Any, count: jax.Array, text: jax.Array) -> Any:
        def body(_: jax.Array, state: Any) -> Any:
            params, opt_state, carry, offset, _ = state
            window = text[(places + offset) % len(text)].astype(jnp.int32)
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            (nats, carry), gradients = value_and_grad(params, carry, window[:-1], window[1:])
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            offset = (offset + shape.window_length) % len(text)
            return optax.apply_updates(params, updates), opt_state, carry, offset, nats

        return jax.lax.fori_loop(0, count, body, state)

    state = (params, optimizer.init(params), carry, jnp.int32(0), jnp.float32(0))
    compiled = jax.jit(dispatch, donate_argnums=0).lower(state, np.int32(0), text).compile()

    def run(count: int) -> dict[str, float]:
        nonlocal state
        state = compiled(state, np.int32(count), text)
        return {"nats": float(jax.block_until_ready(state)[-1])}

    info = {
        "versions": versions_of("jax", "jaxlib", "flax", "optax", "numpy"),
        "device": jax.devices()[0].device_kind,
    }
    return Competitor(run, info)
