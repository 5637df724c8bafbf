"""The LSTM stack layer by layer, each layer one TPU kernel that walks through the window.

A scan on a TPU reads `weight_hh` from HBM at every time step. Here a Pallas kernel brings it into
VMEM once and keeps it there, together with h and c, for the whole window: its grid is sequential
over time, and its pipeline fetches and writes only what is new in a time step. The backward kernel
walks the other way and emits dz; the gradient of `weight_hh` is one product after it, as in scan.

Where there is no TPU the kernels are interpreted: slow, for tests.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from charlstm.errors import UserError
from charlstm.model.recurrence import gates
from charlstm.model.recurrence.pallas_walk import LANES, Walk
from charlstm.model.recurrence.stack import project_first, run_layers
from charlstm.sharding import dimension, specify

NUM_FACTORS = len(gates.Factors._fields)


def pallas_tpu_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
    *,
    interpret: bool | None = None,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for the other arguments and the result.

    Args:
      interpret: run the kernels without a TPU; None does where there is none.

    Raises:
      UserError: the weights do not fit into VMEM, or H is no multiple of 128 (compiled only).
    """
    hidden_size = layers[0]["weight_hh"].shape[0]
    if interpret is None:
        interpret = jax.default_backend() != "tpu"
    if not interpret and hidden_size % LANES:
        raise UserError(
            f"model.recurrence=pallas_tpu needs model.hidden_size={hidden_size} to be a multiple "
            f"of {LANES}: change it, or set model.recurrence=scan"
        )
    layer = partial(pallas_tpu_layer, interpret)
    projection = project_first(layers, inputs, compute_dtype)
    return run_layers(layer, layers, projection, carry, masks, compute_dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pallas_tpu_layer(
    interpret: bool,
    compute_dtype: Any,
    projection: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer; see `Layer` for the other arguments and the result."""
    return _forward(interpret, compute_dtype, projection, weight_hh, h, c)[0]


def _forward(
    interpret: bool,
    compute_dtype: Any,
    projection: jax.Array,
    weight_hh: jax.Array,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    walk = Walk(_forward_kernel, interpret, reverse=False)
    weight = weight_hh.astype(compute_dtype)
    (outputs, factors), (h_last, c_last) = walk(weight, (h, c), [projection], [1, NUM_FACTORS])
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _backward(
    interpret: bool,
    compute_dtype: Any,
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    weight_hh, h_first, outputs, factors = residuals
    d_outputs, dh_last, dc_last = gradients
    walk = Walk(_backward_kernel, interpret, reverse=True)
    weight = weight_hh.astype(compute_dtype)
    (dz,), (dh, dc) = walk(weight, (dh_last, dc_last), [d_outputs, factors], [4])
    d_weight = jnp.einsum(
        "tbh,tbg->hg",
        jnp.concatenate([h_first.astype(compute_dtype)[None], outputs[:-1]]),
        dz,
        preferred_element_type=jnp.float32,
        out_sharding=specify(dimension(weight_hh, 0), dimension(weight_hh, 1)),
    )
    return dz, d_weight, dh, dc


pallas_tpu_layer.defvjp(_forward, _backward)


def _forward_kernel(
    weight: Any,
    h_first: Any,
    c_first: Any,
    z: Any,
    outputs: Any,
    factors: Any,
    h: Any,
    c: Any,
) -> None:
    """A block of time steps; h and c, the states to return, stay in VMEM to the last block."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        h[...] = h_first[...]
        c[...] = c_first[...]

    for t in range(z.shape[0]):
        recurrent = jnp.dot(
            h[...].astype(weight.dtype), weight[...], preferred_element_type=jnp.float32
        )
        h[...], c[...], found = gates.forward(z[t].astype(jnp.float32) + recurrent, c[...], axis=-1)
        outputs[t] = h[...].astype(outputs.dtype)
        factors[t] = jnp.concatenate(found, axis=-1).astype(factors.dtype)


def _backward_kernel(
    weight: Any,
    dh_last: Any,
    dc_last: Any,
    d_outputs: Any,
    factors: Any,
    dz: Any,
    dh: Any,
    dc: Any,
) -> None:
    """A block of time steps backwards; dh and dc stay in VMEM to the first of all."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        dh[...] = dh_last[...]
        dc[...] = dc_last[...]

    for t in reversed(range(dz.shape[0])):
        dz_gates, dc[...] = gates.backward(
            dh[...] + d_outputs[t].astype(jnp.float32),
            dc[...],
            gates.Factors(*jnp.split(factors[t].astype(jnp.float32), NUM_FACTORS, axis=-1)),
        )
        dz[t] = jnp.concatenate(dz_gates, axis=-1).astype(dz.dtype)
        # dz · weightᵀ, the weight as it lies.
        dh[...] = jax.lax.dot_general(
            dz[t], weight[...], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
