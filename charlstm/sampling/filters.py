"""From logits to the distribution that the next symbol is drawn from."""

import jax
import jax.numpy as jnp


def filter_logits(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Returns logits with unlikely symbols ruled out (-inf).

    Args:
      logits: [B, V] float32, temperature applied.
      top_k: only the k likeliest stay (ties with the k-th too); 0 keeps all.
      top_p: only the smallest set of likeliest symbols whose probabilities reach top_p stays
        (nucleus sampling, Holtzman et al. 2020); 1 keeps all.

    Returns:
      [B, V] float32.
    """
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1:
        ranked = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ranked, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(ranked, axis=-1, keepdims=True, where=before < top_p, initial=jnp.inf)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
