"""The LSTM with layer normalisation (Ba, Kiros & Hinton 2016, equations 20-22), a scan over time.

With LN(z; α) = α ⊙ (z - mean z) / √(variance z + ε), over all features of a vector z, and one bias
for the two that the paper adds up:

    [z_i, z_f, z_g, z_o] = LN(h·W_hh; α_hh) + LN(x·W_ih; α_ih) + bias
    c' = σ(z_f) ⊙ c + σ(z_i) ⊙ tanh(z_g)         h' = σ(z_o) ⊙ tanh(LN(c'; α_c) + bias_c)

Everything but the products is in float32. The input's share is made before the loop; of symbols it
is a row of a normalised table. In the gradient what is elementwise is differentiated step by step,
and the gradient of `weight_hh` is one product after the loop, as in `scan.py`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from charlstm.model.recurrence import gates, time_loop
from charlstm.model.recurrence.look_up import look_up
from charlstm.model.recurrence.scan import before, weight_gradient
from charlstm.model.recurrence.stack import project

EPSILON = 1e-5


class Norms(NamedTuple):
    """What the loop normalises with, each with the features along the last axis; float32."""

    gain_hh: jax.Array  # [4H]
    gain_c: jax.Array  # [H]
    bias_c: jax.Array  # [H]

    @classmethod
    def of(cls, layer: dict[str, jax.Array]) -> "Norms":
        """Those of a layer."""
        return cls(layer["gain_hh"], layer["gain_c"], layer["bias_c"])


def normalise(z: jax.Array, gain: jax.Array, axis: int = -1) -> jax.Array:
    """LN(z; gain) over `axis`; float32."""
    mean = jnp.mean(z, axis=axis, keepdims=True)
    variance = jnp.mean(jnp.square(z - mean), axis=axis, keepdims=True)
    return gain * (z - mean) * jax.lax.rsqrt(variance + EPSILON)


def preactivations(norms: Norms, share: jax.Array, recurrent: jax.Array, axis: int) -> jax.Array:
    """The gates' pre-activations.

    Args:
      norms: of the layer, of the shapes that `axis` asks for.
      share: the input's, normalised, bias included.
      recurrent: h·W_hh, as the product gave it.
      axis: of the features.
    """
    return share + normalise(recurrent, norms.gain_hh, axis)


def cell(norms: Norms, z: jax.Array, c: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The outputs h' and cell states c' of pre-activations and the cell states before."""
    i, f, g, o = gates.activations(z, axis)
    c_after = f * c + i * g
    return o * jnp.tanh(normalise(c_after, norms.gain_c, axis) + norms.bias_c), c_after


def input_share(compute_dtype: Any, inputs: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    """The input's share of a layer's pre-activations, normalised, bias included.

    Args:
      compute_dtype: of the product's inputs and of the result.
      inputs: symbols [T, B] or floats [T, B, F], as in `stack.project_inputs`.
      layer: the layer's parameters.

    Returns:
      [T, B, 4H] in the compute dtype.
    """
    if inputs.ndim == 2:
        return look_up(normalised_table(layer).astype(compute_dtype), inputs)
    product = project(compute_dtype, inputs, layer["weight_ih"], jnp.zeros_like(layer["bias"]))
    share = normalise(product.astype(jnp.float32), layer["gain_ih"]) + layer["bias"]
    return share.astype(compute_dtype)


def normalised_table(layer: dict[str, jax.Array]) -> jax.Array:
    """The share of each symbol in the first layer's pre-activations, bias included: [V, 4H]."""
    return normalise(layer["weight_ih"], layer["gain_ih"]) + layer["bias"]


def layer_norm_stack(
    layers: list[dict[str, jax.Array]],
    inputs: jax.Array,
    carry: Any,
    masks: jax.Array | None,
    compute_dtype: Any,
) -> tuple[jax.Array, Any]:
    """Runs a window through the stack; see `Recurrence` for arguments and result.

    Args:
      layers: with the parameters of normalisation beside the others, see `language_model`.
    """
    h_last, c_last = [], []
    for index, layer in enumerate(layers):
        if index > 0 and masks is not None:
            inputs = inputs * masks[index - 1].astype(compute_dtype)
        share = input_share(compute_dtype, inputs, layer)
        # A copy for each stream: its gradient is then added up over the streams once, and not in
        # every time step, by all devices.
        copies = jax.tree.map(
            lambda norm: norm + jnp.zeros_like(carry["h"][0, :, :1]), Norms.of(layer)
        )
        state = carry["h"][index], carry["c"][index]
        inputs, h, c = layer_norm_layer(compute_dtype, share, layer["weight_hh"], copies, *state)
        h_last.append(h)
        c_last.append(c)
    return inputs, {"h": jnp.stack(h_last), "c": jnp.stack(c_last)}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_norm_layer(
    compute_dtype: Any,
    share: jax.Array,
    weight_hh: jax.Array,
    norms: Norms,
    h: jax.Array,
    c: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs a window through one layer.

    Args:
      compute_dtype: of the products' inputs and of the saved activations.
      share: [T, B, 4H], of `input_share`.
      weight_hh: [H, 4H] float32.
      norms: of each stream, [B, 4H] and [B, H].
      h, c: [B, H] float32, the state before the window.

    Returns:
      The outputs [T, B, H] in the compute dtype, and the state after the window, float32.
    """
    return _forward(compute_dtype, share, weight_hh, norms, h, c)[0]


def _step(
    norms: Norms, share: jax.Array, recurrent: jax.Array, c: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What a time step does around its product, features along the last axis."""
    return cell(norms, preactivations(norms, share, recurrent, -1), c, -1)


def _forward(
    compute_dtype: Any,
    share: jax.Array,
    weight_hh: jax.Array,
    norms: Norms,
    h: jax.Array,
    c: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[Any, ...]]:
    weight = weight_hh.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array], share: jax.Array) -> Any:
        h, c = state
        recurrent = jnp.matmul(h.astype(compute_dtype), weight, preferred_element_type=jnp.float32)
        h_after, c_after = _step(norms, share.astype(jnp.float32), recurrent, c)
        saved = recurrent.astype(compute_dtype), c
        return (h_after, c_after), (h_after.astype(compute_dtype), saved)

    (h_last, c_last), (outputs, saved) = time_loop.scan(step, (h, c), share)
    return (outputs, h_last, c_last), (share, weight_hh, norms, h, outputs, saved)


def _backward(
    compute_dtype: Any, residuals: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[Any, ...]:
    share, weight_hh, norms, h_first, outputs, saved = residuals
    d_outputs, dh_last, dc_last = gradients
    weight_transposed = weight_hh.T.astype(compute_dtype)

    def step(state: tuple[jax.Array, jax.Array, Norms], inputs: Any) -> Any:
        dh, dc, d_norms = state
        d_output, share, (recurrent, c) = inputs
        dh = dh + d_output.astype(jnp.float32)
        at = norms, share.astype(jnp.float32), recurrent.astype(jnp.float32), c
        d_here, d_share, d_recurrent, dc = jax.vjp(_step, *at)[1]((dh, dc))
        d_recurrent = d_recurrent.astype(compute_dtype)
        dh = jnp.matmul(d_recurrent, weight_transposed, preferred_element_type=jnp.float32)
        d_norms = jax.tree.map(jnp.add, d_norms, d_here)
        return (dh, dc, d_norms), (d_share.astype(compute_dtype), d_recurrent)

    none = jax.tree.map(jnp.zeros_like, norms)
    (dh, dc, d_norms), (d_share, d_recurrent) = time_loop.scan(
        step, (dh_last, dc_last, none), (d_outputs, share, saved), reverse=True
    )
    d_weight = weight_gradient(before(h_first, outputs), d_recurrent, weight_hh)
    return d_share, d_weight, d_norms, dh, dc


layer_norm_layer.defvjp(_forward, _backward)
