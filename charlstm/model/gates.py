"""The gate mathematics of the LSTM, forward and backward, in one place.

With pre-activations z = [z_i, z_f, z_g, z_o] (Hochreiter & Schmidhuber 1997, with the forget gate
of Gers et al. 2000; no peepholes):

    i, f, o = σ(z_i), σ(z_f), σ(z_o)        g = tanh(z_g)
    c' = f ⊙ c + i ⊙ g                      h' = o ⊙ tanh(c')
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Factors(NamedTuple):
    """The derivative of a time step, as factors that its forward pass finds on its way.

    Each has the shape of the cell state. With them the backward pass of a time step is six
    multiplications and one addition.
    """

    c: jax.Array  # of c' with respect to c: f
    h: jax.Array  # of h' with respect to c': o (1 - tanh² c')
    i: jax.Array  # of c' with respect to z_i
    f: jax.Array  # of c' with respect to z_f
    g: jax.Array  # of c' with respect to z_g
    o: jax.Array  # of h' with respect to z_o


def activations(z: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the gates i, f, g and o of pre-activations, one after the other along `axis`."""
    z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=axis)
    return jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), jnp.tanh(z_g), jax.nn.sigmoid(z_o)


def forward(z: jax.Array, c: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, Factors]:
    """Makes one time step, with the factors of its derivative.

    Args:
      z: float32, the pre-activations, the gates i, f, g, o one after the other along `axis`.
      c: float32, the cell state before.
      axis: of the features.

    Returns:
      h', c' and the factors, all of c's shape; float32.
    """
    return step(*activations(z, axis), c)


def step(
    i: jax.Array, f: jax.Array, g: jax.Array, o: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, Factors]:
    """Does what `forward` does, for gates that are computed already."""
    c_after = f * c + i * g
    tanh_c = jnp.tanh(c_after)
    factors = Factors(
        c=f,
        h=o * (1 - tanh_c * tanh_c),
        i=g * i * (1 - i),
        f=c * f * (1 - f),
        g=i * (1 - g * g),
        o=tanh_c * o * (1 - o),
    )
    return o * tanh_c, c_after, factors


def backward(
    dh: jax.Array, dc: jax.Array, factors: Factors
) -> tuple[tuple[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns the gradient of one time step.

    Args:
      dh: float32, with respect to h'.
      dc: float32, with respect to c', not counting the path through h'.
      factors: of the forward pass, any float dtype.

    Returns:
      The gradients with respect to z_i, z_f, z_g and z_o, and with respect to c; float32.
    """
    dc = dc + dh * factors.h
    dz = dc * factors.i, dc * factors.f, dc * factors.g, dh * factors.o
    return dz, dc * factors.c
