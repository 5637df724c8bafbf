"""The kernels of `pallas_gpu` in NumPy: their blocks, tiles, order of sums, and roundings.

A block multiplies bfloat16 numbers, adds up tile by tile in float32, and reads of other blocks only
what is in global memory: h or dz in bfloat16. What no block computes stays NaN.
"""

import jax.numpy as jnp
import numpy as np
from lstm_reference import sigmoid

ROWS = 64


def rounded(array):
    """Returns float32 numbers that bfloat16 represents."""
    return np.asarray(array, np.float32).astype(jnp.bfloat16).astype(np.float32)


def nothing_yet(*shape):
    return np.full(shape, np.nan, np.float32)


def product(plan, rows, weight):
    """Returns rows [64, depth] times weight [depth, N], added up tile by tile."""
    total = np.zeros((len(rows), weight.shape[1]), np.float32)
    for begin in range(0, plan.depth, plan.tile):
        total += rows[:, begin : begin + plan.tile] @ weight[begin : begin + plan.tile]
    return total


def chains(plan):
    """Yields the streams of each warpgroup of each group of blocks."""
    for chain in range(plan.groups * plan.threads):
        yield slice(ROWS * chain, ROWS * (chain + 1))


def forward(plan, share, weight, h, c):
    """Returns the outputs, h and c after the window, and the factors [T, 6, B, H]."""
    window, streams, _ = share.shape
    size, weight, c = plan.hidden_size, rounded(weight), np.asarray(c, np.float32)
    outputs, factors = nothing_yet(window, streams, size), nothing_yet(window, 6, streams, size)
    for t in range(window):
        read = rounded(h) if t == 0 else outputs[t - 1]
        h_after, c_after = nothing_yet(streams, size), nothing_yet(streams, size)
        for rows in chains(plan):
            for block in range(size // plan.units):
                units = np.arange(plan.units) + block * plan.units
                columns = np.concatenate([units + gate * size for gate in range(4)])
                z = product(plan, read[rows], weight[:, columns]) + share[t, rows][:, columns]
                i, f, g, o = np.split(z, 4, axis=1)
                i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
                before = c[rows, units[0] : units[-1] + 1]
                after = f * before + i * g
                tanh_c = np.tanh(after)
                here = np.ix_(range(rows.start, rows.stop), units)
                h_after[here], c_after[here] = o * tanh_c, after
                found = f, o * (1 - tanh_c**2), g * i * (1 - i), before * f * (1 - f)
                found += i * (1 - g * g), tanh_c * o * (1 - o)
                for index, factor in enumerate(found):
                    factors[t, index][here] = rounded(factor)
        outputs[t], h, c = rounded(h_after), h_after, c_after
    return outputs, h, c, factors


def backward(plan, weight, factors, d_outputs, dh, dc):
    """Returns dz [T, B, 4H], and the gradients with respect to h and c before the window."""
    window, streams, size = d_outputs.shape
    weight, shared = rounded(weight), plan.units * plan.cluster
    dz = nothing_yet(window, streams, 4 * size)
    for t in reversed(range(window)):
        by_c, by_h, *by_gate = factors[t]
        dh = dh + d_outputs[t]
        dc = dc + dh * by_h
        dz[t] = rounded(np.concatenate([dc * by for by in by_gate[:3]] + [dh * by_gate[3]], axis=1))
        dc = dc * by_c
        dh = nothing_yet(streams, size)
        for rows in chains(plan):
            for begin in range(0, size, shared):  # a cluster's units
                sums = [
                    product(plan, dz[t, rows, part], weight[begin : begin + shared, part].T)
                    for peer in range(plan.cluster)
                    for part in [slice(peer * plan.depth, (peer + 1) * plan.depth)]
                ]
                total = sums[0]
                for part in sums[1:]:
                    total = total + part
                dh[rows, begin : begin + shared] = total
    return dz, dh, dc
