"""From logits to the distribution that the next symbol is drawn from."""

import jax
import jax.numpy as jnp

# Below this temperature, rounding errors of the quotients would be felt in their exponentials.
_SMALL = 0.1
# Temperatures beyond these have the same effect, and these have inverses in float32.
_LEAST, _MOST = 2.0**-126, 2.0**126


def divide(logits: jax.Array, temperature: float, axis: int = -1) -> jax.Array:
    """Returns logits divided by a temperature above 0; a small one makes the largest of them 0.

    Their probabilities are exact at any temperature: the likeliest symbol's quotient is 0, and
    those of others may overflow to -inf.

    Args:
      logits: float32.
      temperature: any number above 0.
      axis: of the symbols.
    """
    if temperature < _SMALL:  # else as it is, so that a seed gives the text that it always gave
        logits = logits - jnp.max(logits, axis, keepdims=True)
    return logits / min(max(temperature, _LEAST), _MOST)


def filter_logits(
    logits: jax.Array, top_k: int, top_p: float, temperature: float = 1.0
) -> jax.Array:
    """Returns logits with unlikely symbols ruled out (-inf).

    Args:
      logits: [B, V] float32, not divided by the temperature: at extreme ones the order is lost.
      top_k: only the k likeliest stay (ties with the k-th too); 0 keeps all.
      top_p: only the smallest set of likeliest symbols whose probabilities reach top_p stays
        (nucleus sampling, Holtzman et al. 2020); 1 keeps all.
      temperature: of these probabilities.

    Returns:
      [B, V] float32.
    """
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1:
        ranked = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(divide(ranked, temperature), axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(ranked, axis=-1, keepdims=True, where=before < top_p, initial=jnp.inf)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
