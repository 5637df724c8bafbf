"""A stack with connections past its layers: every layer a stack of its own, sums in between.

With h_l what layer l puts out at a time step, counted from 0:

               layer l reads              the head reads
  residual     h_0 + … + h_(l-1)          h_0 + … + h_(L-1)      He et al. 2016
  skip         h_(l-1)                    h_0 + … + h_(L-1)      Melis, Dyer & Blunsom 2018

Dropout masks act on what a layer reads; sums go on undropped.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from charlstm.model.recurrence import Recurrence


def connected_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
    *,
    run: "Recurrence",
    connections: str,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for the other arguments and the result.

    Args:
      run: of each layer.
      connections: `residual` or `skip`.
    """
    after: list[Any] = []
    total: Any = 0
    for index, layer in enumerate(layers):
        if index > 0 and masks is not None:
            inputs = inputs * masks[index - 1].astype(compute_dtype)
        before: Any = {name: states[index : index + 1] for name, states in carry.items()}
        outputs, state = run([layer], inputs, before, None, compute_dtype)
        after.append(state)
        total = outputs + total if index else outputs
        inputs = total if connections == "residual" else outputs
    return total, jax.tree.map(lambda *states: jnp.concatenate(states), *after)
