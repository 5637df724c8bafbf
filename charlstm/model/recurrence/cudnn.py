"""The LSTM stack on an NVIDIA GPU by cuDNN: a baseline to measure the other recurrences against.

`jax.experimental.rnn` is float32 (TF32 in the products, unless `jax_default_matmul_precision` says
otherwise) and has no dropout masks that could be given to it.

cuDNN multiplies the input of its first layer with a weight, and of symbols that is a look-up. So a
first layer that reads symbols is a scan, and cuDNN runs the layers above, whose inputs are dense.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from charlstm.errors import UserError
from charlstm.model.cell import Layer
from charlstm.model.recurrence.base import Recurrence, Structure
from charlstm.model.recurrence.scan import Scan
from charlstm.model.stack import Carry
from charlstm.runtime.shardings import dimension
from charlstm.runtime.targets import Platform


@dataclasses.dataclass(frozen=True)
class Cudnn(Recurrence):
    """Runs the layers above the first, or all that read floats, by cuDNN."""

    name: ClassVar[str] = "cudnn"
    takes_connections: ClassVar[bool] = False
    platform: ClassVar[Platform | None] = "cuda"

    def __call__(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """See `Recurrence`.

        Raises:
          UserError: the dtype is not float32, or there are masks.
        """
        if masks is not None or network.compute.dtype != jnp.float32:
            raise UserError(
                "model.recurrence=cudnn computes in float32 and drops nothing between layers: set "
                "model.compute_dtype=float32 and model.dropout=0, or model.recurrence=scan"
            )
        if inputs.ndim == 3:
            outputs, h, c = _run_dense(pack(layers), inputs, carry["h"], carry["c"])
            return outputs, {"h": h, "c": c}
        lower: Carry = {"h": carry["h"][:1], "c": carry["c"][:1]}
        outputs, lower = Scan()(network, layers[:1], inputs, lower, None)
        outputs, h, c = _run_dense(pack(layers[1:]), outputs, carry["h"][1:], carry["c"][1:])
        return outputs, {
            "h": jnp.concatenate([lower["h"], h]),
            "c": jnp.concatenate([lower["c"], c]),
        }


def pack(layers: list[Layer]) -> jax.Array:
    """Returns all weights in the order of `jax.experimental.rnn`, float32 [num_params].

    First the matrices of all layers, each transposed to [4H, H] with the gates in the order
    i, f, g, o, then the biases; cuDNN adds two of them, so the second is zero.

    Args:
      layers: from the bottom up, `weight_ih` [F, 4H] in the first of them and [H, 4H] in the
        others, `weight_hh` [H, 4H] and `bias` [4H].
    """
    pieces = []
    for layer in layers:
        pieces += [layer["weight_ih"].T.reshape(-1), layer["weight_hh"].T.reshape(-1)]
    for layer in layers:
        pieces += [layer["bias"], jnp.zeros_like(layer["bias"])]
    return jnp.concatenate(pieces)


def _run_dense(
    weights: jax.Array, inputs: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Leaves N layers to cuDNN: outputs [T, B, H] of inputs [T, B, F], and h, c [N, B, H]."""

    def run(weights: jax.Array, inputs: jax.Array, h: jax.Array, c: jax.Array) -> Any:
        window, streams, input_size = inputs.shape
        hidden_size = h.shape[2]
        outputs, h, c = rnn.lstm(
            jnp.swapaxes(inputs, 0, 1),
            h,
            c,
            weights,
            jnp.full(streams, window, jnp.int32),
            input_size,
            hidden_size,
            h.shape[0],
            0.0,
            False,
        )
        return jnp.swapaxes(outputs, 0, 1), h, c

    if not jax.sharding.get_abstract_mesh().empty:
        # XLA cannot split the call over devices by itself.
        spec = jax.P(None, dimension(h, 1), None)
        run = jax.shard_map(
            run, in_specs=(jax.P(None), spec, spec, spec), out_specs=spec, check_vma=False
        )
    return run(weights, inputs, h, c)
