"""Shardings of what is computed, read off its inputs.

Under a mesh with explicit axes JAX tracks how every array is split, and a few operations must
be told how to split their result. Without a mesh nothing is split and nothing need be said.
"""

import jax


def specify(*dimensions: str | tuple[str, ...] | None) -> jax.P | None:
    """Returns the partition spec of a result, or None without a mesh to split it over."""
    return None if jax.sharding.get_abstract_mesh().empty else jax.P(*dimensions)


def dimension(array: jax.Array, axis: int) -> str | tuple[str, ...] | None:
    """Returns the mesh axis that a dimension of the array is split over; None if it is whole."""
    return jax.typeof(array).sharding.spec[axis]
