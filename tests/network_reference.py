"""The whole network in float64, one time step and one formula at a time, with every option.

Written from the papers' equations alone; differentiated by JAX. To be used under `jax.enable_x64`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def random_params(
    seed, *, num_layers=3, hidden=6, symbols=7, embedding=0, layer_norm=False, streams=4
):
    """Parameters and carry, float64 NumPy, none of them zero."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape)  # noqa: E731
    layers = {}
    for index in range(num_layers):
        size = hidden if index else embedding or symbols
        layers[str(index)] = {
            "weight_ih": 0.5 * normal(size, 4 * hidden),
            "weight_hh": 0.4 * normal(hidden, 4 * hidden),
            "bias": 0.3 * normal(4 * hidden),
        }
        if layer_norm:
            layers[str(index)] |= {
                "gain_ih": 1 + 0.3 * normal(4 * hidden),
                "gain_hh": 1 + 0.3 * normal(4 * hidden),
                "gain_c": 1 + 0.3 * normal(hidden),
                "bias_c": 0.3 * normal(hidden),
            }
    params = {
        "layers": layers,
        "head": {"kernel": normal(hidden, symbols), "bias": normal(symbols)},
    }
    if embedding:
        params["embedding"] = normal(symbols, embedding)
    state = (num_layers, streams, hidden)
    return params, {"h": np.tanh(normal(*state)), "c": normal(*state)}


def _normalized(z):
    """(z - μ) / σ over the last axis, with the paper code's 1e-5 beside the variance."""
    mean = z.mean(-1, keepdims=True)
    return (z - mean) / jnp.sqrt(((z - mean) ** 2).mean(-1, keepdims=True) + 1e-5)


def outputs(params, carry, inputs, *, connections="plain", masks=None):
    """What the head reads before dropout, one [B, H] for each time step; and the carry after.

    `masks`: of `input` [T, B, V or E], `between` [L-1, T, B, H] and `weights` [L, H, 4H].
    """
    masks = masks or {}
    layers = [params["layers"][str(index)] for index in range(len(params["layers"]))]
    h, c = [list(carry[name]) for name in "hc"]
    read = []
    for t in range(len(inputs)):
        symbols = params["head"]["bias"].shape[0]
        x = jnp.eye(symbols)[inputs[t]]
        if "embedding" in params:
            x = x @ params["embedding"]
        if "input" in masks:
            x = x * masks["input"][t]
        put_out = []
        for index, layer in enumerate(layers):
            if index > 0:
                x = sum(put_out) if connections == "residual" else put_out[-1]
                if "between" in masks:
                    x = x * masks["between"][index - 1][t]
            weight_hh = layer["weight_hh"]
            if "weights" in masks:
                weight_hh = weight_hh * masks["weights"][index]
            below, before = x @ layer["weight_ih"], h[index] @ weight_hh
            if "gain_ih" in layer:
                below = layer["gain_ih"] * _normalized(below)
                before = layer["gain_hh"] * _normalized(before)
            i, f, g, o = jnp.split(below + before + layer["bias"], 4, axis=-1)
            i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
            c[index] = f * c[index] + i * g
            cell = c[index]
            if "gain_ih" in layer:
                cell = layer["gain_c"] * _normalized(cell) + layer["bias_c"]
            h[index] = o * jnp.tanh(cell)
            put_out.append(h[index])
        read.append(put_out[-1] if connections == "plain" else sum(put_out))
    return read, {"h": jnp.stack(h), "c": jnp.stack(c)}


def logits(params, read):
    return jnp.stack(read) @ params["head"]["kernel"] + params["head"]["bias"]


def rounded_params(symbols, *, embedding, layer_norm):
    """Parameters of a small network, float64 numbers that float32 can hold."""
    params, _ = random_params(
        5, symbols=symbols, embedding=embedding, layer_norm=layer_norm, streams=1
    )
    return jax.tree.map(lambda leaf: np.float64(np.float32(leaf)), params)


def read_alone(params, symbols, connections):
    """Reads one text from a state of zeros.

    Returns:
      Logits [N, V] of what comes after each symbol, and the carry after, float64.
    """
    num_layers, hidden = len(params["layers"]), params["head"]["kernel"].shape[0]
    carry = {name: np.zeros((num_layers, 1, hidden)) for name in "hc"}
    inputs = np.asarray(symbols)[:, None]
    with jax.enable_x64(True):
        read, after = outputs(params, carry, inputs, connections=connections)
        return jax.device_get((logits(params, read)[:, 0], after))


def loss(params, carry, inputs, targets, *, alpha=0.0, beta=0.0, masks=None, **options):
    """The loss with AR and TAR; (nats alone, the carry after)."""
    raw, after = outputs(params, carry, inputs, masks=masks, **options)
    dropped = [h * masks["output"][t] for t, h in enumerate(raw)] if masks else raw
    log_p = jax.nn.log_softmax(logits(params, dropped))
    picked = [log_p[t, b, s] for t, row in enumerate(targets) for b, s in enumerate(row)]
    nats = -sum(picked) / len(picked)
    squares = sum(jnp.sum(h**2) for h in dropped) / (len(raw) * raw[0].size)
    steps = [jnp.sum((raw[t + 1] - raw[t]) ** 2) for t in range(len(raw) - 1)]
    added = alpha * squares
    if steps:
        added = added + beta * sum(steps) / (len(steps) * raw[0].size)
    return nats + added, (nats, after)
