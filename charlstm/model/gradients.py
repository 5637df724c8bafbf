"""Functions whose gradient is written by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax


def with_gradient(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[..., Any], num_static: int = 0
) -> Callable[..., Any]:
    """Returns the function that `forward` computes, with `backward` as its gradient.

    Args:
      forward: (*static, *arguments) → (result, residuals).
      backward: (*static, residuals, gradient of the result) → a gradient for each argument.
      num_static: how many of the first arguments are no arrays but hashable values.
    """

    @functools.wraps(forward)
    def primal(*arguments: Any) -> Any:
        return forward(*arguments)[0]

    run = jax.custom_vjp(primal, nondiff_argnums=tuple(range(num_static)))
    run.defvjp(forward, backward)
    return run
