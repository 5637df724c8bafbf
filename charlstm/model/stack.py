"""The walk over the layers of a stack: dropout masks and connections, for every way of running it.

With h_l what layer l puts out at a time step, counted from 0:

                 layer l reads              the head reads
  plain          h_(l-1)                    h_(L-1)
  residual       h_0 + … + h_(l-1)          h_0 + … + h_(L-1)      He et al. 2016
  skip           h_(l-1)                    h_0 + … + h_(L-1)      Melis, Dyer & Blunsom 2018

Dropout masks act on what a layer reads; the sums take what it puts out undropped.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import jax
import jax.numpy as jnp

Connections = Literal["plain", "residual", "skip"]
State = tuple[jax.Array, jax.Array]  # h and c of one layer


class Carry(TypedDict):
    """The state of every layer, carried from time step to time step and window to window."""

    h: jax.Array  # [L, B, H] float32, the outputs
    c: jax.Array  # [L, B, H] float32, the cell states


def walk(
    run_layer: Callable[[int, Any, State], tuple[jax.Array, State]],
    inputs: Any,
    states: Sequence[State],
    masks: Sequence[jax.Array] | jax.Array | None,
    connections: Connections,
) -> tuple[jax.Array, list[State]]:
    """Runs layer after layer, from the bottom up.

    Args:
      run_layer: (index, inputs, state) → (outputs, state after) of one layer, for a window or a
        time step, in any layout.
      inputs: of the first layer.
      states: of each layer, before.
      masks: L-1 factors, in the layout of the outputs, on what each layer above the first reads;
        None drops nothing.
      connections: past layers, see above.

    Returns:
      What the head reads, in the layout of the outputs, and the states after.
    """
    total: Any = None
    after: list[State] = []
    for index, state in enumerate(states):
        if index and masks is not None:
            inputs = inputs * masks[index - 1]
        outputs, state_after = run_layer(index, inputs, state)
        after.append(state_after)
        total = outputs if total is None or connections == "plain" else outputs + total
        inputs = total if connections == "residual" else outputs
    return total, after


def unstack(carry: Carry) -> list[State]:
    """Returns the state of each layer, [B, H]."""
    return [(carry["h"][index], carry["c"][index]) for index in range(carry["h"].shape[0])]


def restack(states: Sequence[State]) -> Carry:
    """Is the inverse of `unstack`."""
    h, c = zip(*states, strict=True)
    return {"h": jnp.stack(h), "c": jnp.stack(c)}
