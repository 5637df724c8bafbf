"""A byte LSTM and its gradient in NumPy, float64, one time step and one formula at a time.

Written from the equations alone, as something to hold the fast code against.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_case(seed, *, num_layers=2, hidden_size=12, window=9, streams=4, symbols=11):
    """Parameters, carry, inputs and targets, float64, none of them zero."""
    rng = np.random.default_rng(seed)
    sizes = [symbols] + [hidden_size] * (num_layers - 1)

    def normal(*shape):
        return rng.normal(size=shape)

    params = {
        "layers": {
            str(index): {
                "weight_ih": 0.5 * normal(size, 4 * hidden_size),
                "weight_hh": 0.4 * normal(hidden_size, 4 * hidden_size),
                "bias": 0.3 * normal(4 * hidden_size),
            }
            for index, size in enumerate(sizes)
        },
        "head": {"kernel": normal(hidden_size, symbols), "bias": normal(symbols)},
    }
    state = (num_layers, streams, hidden_size)
    carry = {"h": np.tanh(normal(*state)), "c": normal(*state)}
    inputs, targets = rng.integers(0, symbols, (2, window, streams)).astype(np.uint8)
    return params, carry, inputs, targets


def forward(params, carry, inputs, masks=None):
    """Logits [T, B, V], the carry after, and all that the backward pass needs."""
    layers = [params["layers"][str(i)] for i in range(len(params["layers"]))]
    h, c = carry["h"].copy(), carry["c"].copy()
    logits, tape = [], []
    for t, row in enumerate(inputs):
        steps = []
        for index, layer in enumerate(layers):
            if index == 0:
                x = np.eye(layer["weight_ih"].shape[0])[row]
            else:
                x = h[index - 1].copy()
                if masks is not None:
                    x = x * masks[index - 1][t if len(masks[index - 1]) > 1 else 0]
            z = x @ layer["weight_ih"] + h[index] @ layer["weight_hh"] + layer["bias"]
            i, f, g, o = np.split(z, 4, axis=-1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c_before, h_before = c[index].copy(), h[index].copy()
            c[index] = f * c_before + i * g
            h[index] = o * np.tanh(c[index])
            steps.append((x, h_before, c_before, i, f, g, o, c[index].copy()))
        tape.append((steps, h[-1].copy()))
        logits.append(h[-1] @ params["head"]["kernel"] + params["head"]["bias"])
    return np.stack(logits), {"h": h, "c": c}, tape


def loss_and_gradients(params, carry, inputs, targets, masks=None):
    """Mean nats, gradients of all parameters, and the carry after the window."""
    logits, carry_after, tape = forward(params, carry, inputs, masks)
    shifted = logits - logits.max(-1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    one_hot = np.eye(logits.shape[-1])[targets]
    count = targets.size
    loss = -np.sum(np.log(probabilities) * one_hot) / count
    d_logits = (probabilities - one_hot) / count

    num_layers = len(params["layers"])
    gradients = {
        "layers": {
            name: {key: np.zeros_like(value) for key, value in layer.items()}
            for name, layer in params["layers"].items()
        },
        "head": {key: np.zeros_like(value) for key, value in params["head"].items()},
    }
    dh_next = np.zeros_like(carry["h"])
    dc_next = np.zeros_like(carry["c"])
    for t in reversed(range(len(inputs))):
        steps, top = tape[t]
        gradients["head"]["kernel"] += top.T @ d_logits[t]
        gradients["head"]["bias"] += d_logits[t].sum(0)
        from_above = d_logits[t] @ params["head"]["kernel"].T
        for index in reversed(range(num_layers)):
            layer, gradient = params["layers"][str(index)], gradients["layers"][str(index)]
            x, h_before, c_before, i, f, g, o, c = steps[index]
            dh = from_above + dh_next[index]
            do = dh * np.tanh(c)
            dc = dc_next[index] + dh * o * (1 - np.tanh(c) ** 2)
            dz = np.concatenate(
                [
                    dc * g * i * (1 - i),
                    dc * c_before * f * (1 - f),
                    dc * i * (1 - g**2),
                    do * o * (1 - o),
                ],
                axis=-1,
            )
            gradient["weight_ih"] += x.T @ dz
            gradient["weight_hh"] += h_before.T @ dz
            gradient["bias"] += dz.sum(0)
            dh_next[index] = dz @ layer["weight_hh"].T
            dc_next[index] = dc * f
            from_above = dz @ layer["weight_ih"].T
            if index > 0 and masks is not None:
                mask = masks[index - 1]
                from_above = from_above * mask[t if len(mask) > 1 else 0]
    return loss, gradients, carry_after
