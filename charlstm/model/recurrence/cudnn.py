"""The LSTM stack on an NVIDIA GPU by cuDNN: a baseline to measure the other recurrences against.

`jax.experimental.rnn` is float32 (TF32 in the products, unless `jax_default_matmul_precision` says
otherwise) and has no dropout masks that could be given to it.

cuDNN multiplies the input of its first layer with a weight, and of symbols that is a look-up. So a
first layer that reads symbols is a scan, and cuDNN runs the layers above, whose inputs are dense.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from charlstm.errors import UserError
from charlstm.model.recurrence.scan import scan_stack
from charlstm.sharding import dimension


def cudnn_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result.

    Raises:
      UserError: no NVIDIA GPU, a single layer, dropout, or a compute dtype other than float32.
    """
    looks_up = inputs.ndim == 2
    _check(len(layers) - looks_up, masks, compute_dtype)
    if not looks_up:
        outputs, h, c = _run_dense(pack(layers), inputs, carry["h"], carry["c"])
        return outputs, {"h": h, "c": c}
    lower = {name: state[:1] for name, state in carry.items()}
    upper = {name: state[1:] for name, state in carry.items()}
    outputs, lower = scan_stack(layers[:1], inputs, lower, None, compute_dtype)
    outputs, h, c = _run_dense(pack(layers[1:]), outputs, upper["h"], upper["c"])
    after = {
        "h": jnp.concatenate([lower["h"], h]),
        "c": jnp.concatenate([lower["c"], c]),
    }
    return outputs, after


def _check(num_dense: int, masks: jax.Array | None, compute_dtype: Any) -> None:
    if not _has_nvidia_gpu():
        raise UserError(
            f"model.recurrence=cudnn needs an NVIDIA GPU, and jax runs on "
            f"{jax.devices()[0].device_kind}: set model.recurrence=scan"
        )
    if compute_dtype != jnp.float32:
        raise UserError(
            f"model.recurrence=cudnn computes in float32 only, not in "
            f"{jnp.dtype(compute_dtype).name}: set model.compute_dtype=float32 or "
            f"model.recurrence=scan"
        )
    if masks is not None:
        raise UserError(
            "model.recurrence=cudnn cannot drop values between layers: set model.dropout=0 or "
            "model.recurrence=scan"
        )
    if num_dense == 0:
        raise UserError(
            "model.recurrence=cudnn runs the layers above the first, and model.num_layers=1 has "
            "none: set model.recurrence=scan"
        )


def _has_nvidia_gpu() -> bool:
    return "cuda" in jax.devices()[0].client.platform_version.lower()


def pack(layers: list[dict[str, jax.Array]]) -> jax.Array:
    """All weights in the order of `jax.experimental.rnn`, float32 [num_params].

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
    """N layers left to cuDNN: outputs [T, B, H] of inputs [T, B, F], and h, c [N, B, H]."""

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
