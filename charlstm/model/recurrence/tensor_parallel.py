"""The LSTM stack with each layer's hidden units shared out among devices, for large layers.

Along the mesh's axis `model` every device holds the columns i, f, g and o of its own share of the
hidden units: the weights are [H, 4, H] with the last dimension split, so that the gates of a unit
stay together and only outputs travel. A time step gathers them, and its gradient scatters sums.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from charlstm.model import gates, time_loop
from charlstm.model.cell import Layer, Lstm
from charlstm.model.compute import Compute
from charlstm.model.gradients import with_gradient
from charlstm.model.look_up import look_up
from charlstm.model.recurrence.base import LayerByLayer, Structure
from charlstm.model.recurrence.scan import before
from charlstm.model.stack import Carry, State
from charlstm.runtime.meshes import DATA_AXIS, MODEL_AXIS

# How arrays lie over the mesh; U is the hidden units, split.
_WEIGHT = jax.P(None, None, MODEL_AXIS)  # [F, 4, U]
_STATE = jax.P(DATA_AXIS, MODEL_AXIS)  # [B, U]
_OUTPUTS = jax.P(None, DATA_AXIS, MODEL_AXIS)  # [T, B, U]
_PROJECTION = jax.P(None, DATA_AXIS, None, MODEL_AXIS)  # [T, B, 4, U]
_GATHERED = jax.P(None, DATA_AXIS, None)  # [T, B, H]
_FACTORS: Any = gates.Factors(*[_OUTPUTS] * len(gates.Factors._fields))  # type: ignore[arg-type]


_CELL = Lstm()


@dataclasses.dataclass(frozen=True)
class TensorParallel(LayerByLayer):
    """Runs each layer on several devices, which share its hidden units.

    A mesh with the axes `data` and `model` must be in force, with explicit axes.
    """

    name: ClassVar[str] = "tensor_parallel"

    def __call__(
        self, network: Structure, layers: list[Layer], inputs: Any, carry: Carry, masks: Any
    ) -> tuple[jax.Array, Carry]:
        """See `Recurrence`."""
        outputs, last = super().__call__(network, layers, inputs, carry, masks)
        h, c = jax.reshard(last["h"], _GATHERED), jax.reshard(last["c"], _GATHERED)
        return outputs, {"h": h, "c": c}

    def run_layer(
        self, network: Structure, layer: Layer, inputs: jax.Array, state: State
    ) -> tuple[jax.Array, State]:
        """See `LayerByLayer`; the outputs are gathered."""
        share = _project_inputs(network.compute, inputs, layer)
        h, c = (jax.reshard(part, _STATE) for part in state)
        weight = _by_unit(layer["weight_hh"])
        outputs, h, c = tensor_parallel_layer(network.compute, share, weight, h, c)
        return outputs, (h, c)


def _project_inputs(compute: Compute, inputs: jax.Array, layer: Layer) -> jax.Array:
    """Returns the input's share of the pre-activations, [T, B, 4, U]; see `Cell.project`."""
    weight = _by_unit(layer["weight_ih"])
    bias = jax.reshard(layer["bias"].reshape(4, -1), jax.P(None, MODEL_AXIS))
    if inputs.ndim == 3:
        return _project(compute.dtype, inputs, weight, bias)
    return look_up(compute.target, (weight + bias).astype(compute.dtype), inputs)


def _by_unit(weight: jax.Array) -> jax.Array:
    """A weight [F, 4H], however it is split, as [F, 4, U]."""
    return jax.reshard(weight.reshape(weight.shape[0], 4, -1), _WEIGHT)


def _project_forward(
    compute_dtype: Any, inputs: jax.Array, weight: jax.Array, bias: jax.Array
) -> tuple[jax.Array, Any]:
    """Returns inputs [T, B, F] · weight [F, 4, U] + bias [4, U], in the compute dtype.

    The gradient is written by hand to keep its products in the compute dtype, as that of
    `projection.project` is.
    """
    product = _product("tbh,hgu->tbgu", inputs, weight.astype(compute_dtype), _PROJECTION)
    return (product + bias).astype(compute_dtype), (inputs, weight)


def _project_backward(
    compute_dtype: Any, residuals: Any, gradient: jax.Array
) -> tuple[jax.Array, ...]:
    inputs, weight = residuals
    d_inputs = _product("tbgu,hgu->tbh", gradient, weight.astype(compute_dtype), _GATHERED)
    d_weight = _product("tbh,tbgu->hgu", inputs, gradient, _WEIGHT)
    d_bias = jnp.sum(gradient, axis=(0, 1), dtype=jnp.float32)
    return d_inputs.astype(compute_dtype), d_weight, jax.reshard(d_bias, jax.P(None, MODEL_AXIS))


_project = with_gradient(_project_forward, _project_backward, num_static=1)


def _product(subscripts: str, left: jax.Array, right: jax.Array, spec: jax.P) -> jax.Array:
    return jnp.einsum(
        subscripts, left, right, preferred_element_type=jnp.float32, out_sharding=spec
    )


def _forward(
    compute: Compute, projection: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    """Runs a window through one layer.

    Args:
      compute: the dtype of the products' inputs and of the saved activations; the target.
      projection: [T, B, 4, U], the input's share of the pre-activations.
      weight_hh: [H, 4, U] float32.
      h, c: [B, U] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    run = jax.shard_map(
        partial(_forward_here, compute),
        in_specs=(_PROJECTION, _WEIGHT, _STATE, _STATE),
        out_specs=(_GATHERED, _STATE, _STATE, _FACTORS),
        check_vma=False,
    )
    outputs, h_last, c_last, factors = run(projection, weight_hh, h, c)
    return (outputs, h_last, c_last), (weight_hh, h, outputs, factors)


def _forward_here(
    compute: Compute, projection: jax.Array, weight_hh: jax.Array, h: jax.Array, c: jax.Array
) -> Any:
    """One device's share; its arrays are the parts that it holds."""
    window_length, batch = projection.shape[:2]
    weight = weight_hh.astype(compute.dtype).reshape(weight_hh.shape[0], -1)

    def step(state: tuple[jax.Array, ...], z: jax.Array) -> Any:
        every, _, c = state
        recurrent = jnp.matmul(every, weight, preferred_element_type=jnp.float32)
        z = z.astype(jnp.float32)
        h, c, saved = _CELL.forward((), z, recurrent, c, -1, compute.dtype)
        every = _gather(compute, h)
        return (every, h, c), (every, saved)

    flat = projection.reshape(window_length, batch, -1)
    state = _gather(compute, h), h, c
    (_, h, c), (outputs, factors) = time_loop.scan(compute.target, step, state, flat)
    return outputs, h, c, factors


def _gather(compute: Compute, h: jax.Array) -> jax.Array:
    """Returns the outputs of all units, [B, H]: what devices tell each other in a time step.

    They are kept, so that neither the layer above nor the gradient gathers them again.
    """
    return jax.lax.all_gather(h.astype(compute.dtype), MODEL_AXIS, axis=1, tiled=True)


def _backward(
    compute: Compute, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    weight_hh, h, outputs, factors = residuals
    run = jax.shard_map(
        partial(_backward_here, compute),
        in_specs=(
            *(_WEIGHT, _STATE, _GATHERED, _FACTORS),
            *(_OUTPUTS, _STATE, _STATE),
        ),
        out_specs=(_PROJECTION, _WEIGHT, _STATE, _STATE),
        check_vma=False,
    )
    d_outputs, *d_state = gradients
    return run(weight_hh, h, outputs, factors, jax.reshard(d_outputs, _OUTPUTS), *d_state)


def _backward_here(
    compute: Compute,
    weight_hh: jax.Array,
    h_first: jax.Array,
    outputs: jax.Array,
    factors: gates.Factors,
    d_outputs: jax.Array,
    dh_last: jax.Array,
    dc_last: jax.Array,
) -> Any:
    window_length, batch, units = d_outputs.shape
    weight_transposed = weight_hh.astype(compute.dtype).reshape(weight_hh.shape[0], -1).T

    def step(state: tuple[jax.Array, jax.Array], inputs: Any) -> Any:
        dh, dc = state
        d_output, factors = inputs
        dh = dh + d_output.astype(jnp.float32)
        dz, _, dc, _ = _CELL.backward((), (), factors, dh, dc, -1, compute.dtype)
        every = jnp.matmul(dz, weight_transposed, preferred_element_type=jnp.float32)
        dh = jax.lax.psum_scatter(every, MODEL_AXIS, scatter_dimension=1, tiled=True)
        return (dh, dc), dz

    (dh, dc), dz = time_loop.scan(
        compute.target, step, (dh_last, dc_last), (d_outputs, factors), reverse=True
    )
    met = before(_gather(compute, h_first), outputs)
    d_weight = jnp.einsum("tbh,tbg->hg", met, dz, preferred_element_type=jnp.float32)
    d_weight = jax.lax.psum(d_weight, DATA_AXIS).reshape(weight_hh.shape)
    return dz.reshape(window_length, batch, 4, units), d_weight, dh, dc


tensor_parallel_layer = with_gradient(_forward, _backward, num_static=1)
