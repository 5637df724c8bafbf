"""From logits to the distribution that the next symbol is drawn from."""

import jax
import jax.numpy as jnp
import numpy as np

# Below this temperature, rounding errors of the quotients would be felt in their exponentials.
_SMALL = 0.1
# Temperatures beyond these have the same effect, and these have inverses in float32.
_LEAST, _MOST = 2.0**-126, 2.0**126


def in_range(temperature: float) -> np.float32:
    """Returns a temperature as `tempered` takes it: 0, or one with an inverse in float32."""
    return np.float32(temperature and min(max(temperature, _LEAST), _MOST))


def tempered(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """Returns logits divided by temperatures, less their maximum.

    Their probabilities are exact at any temperature: the likeliest symbol's quotient is 0, and
    those of others may overflow to -inf. At 0 the likeliest alone have a probability.

    Args:
      logits: [V, B] float32.
      temperature: [B] float32, see `in_range`.
    """
    most = jnp.max(logits, axis=0)
    # Else as they are, so that a seed gives the text that it always gave.
    shift = jnp.where(temperature < _SMALL, most, 0)
    divisor = jnp.maximum(temperature, _LEAST)
    return (logits - shift) / divisor - (most - shift) / divisor


def filter_logits(
    logits: jax.Array, top_k: jax.Array, top_p: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Returns logits with unlikely symbols ruled out (-inf).

    Args:
      logits: [V, B] float32, not divided by the temperature: at extreme ones the order is lost.
      top_k: [B] int32; only the k likeliest stay (ties with the k-th too); 0 keeps all.
      top_p: [B] float32; only the smallest set of likeliest symbols whose probabilities reach top_p
        stays (nucleus sampling, Holtzman et al. 2020); 1 keeps all.
      temperature: [B] float32, of these probabilities; see `tempered`.

    Returns:
      [V, B] float32.
    """
    ranked = jnp.sort(logits, axis=0, descending=True)
    is_among = (jnp.arange(len(ranked))[:, None] < top_k) | (top_k == 0)
    kth = jnp.min(ranked, axis=0, where=is_among, initial=jnp.inf)
    ranked = jnp.where(ranked < kth, -jnp.inf, ranked)
    probabilities = jax.nn.softmax(tempered(ranked, temperature), axis=0)
    before = jnp.cumsum(probabilities, axis=0) - probabilities
    stays = (before < top_p) | (top_p >= 1)
    least = jnp.min(ranked, axis=0, where=stays & (ranked >= kth), initial=jnp.inf)
    return jnp.where(logits < least, -jnp.inf, logits)
