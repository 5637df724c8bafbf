"""The cells: what a layer does in one time step, forward and backward.

A cell never sees how time steps are looped over, how arrays lie in memory, or how layers are
connected: `axis` says along which dimension the features lie, and all else is elementwise in the
others. With a layer's input x, its last output h and last cell state c, a time step is

    share = input_share(x·W_ih)     recurrent = h·W_hh     h', c' = forward(share, recurrent, c)

`Lstm` adds the two shares (see `gates` for its formulas). `LayerNormLstm` normalizes each of them
and the cell state (Ba, Kiros & Hinton 2016, equations 20-22): with
LN(z; α) = α ⊙ (z - mean z) / √(variance z + ε), over all features of a vector z, and one bias for
the two that the paper adds up,

    [z_i, z_f, z_g, z_o] = LN(h·W_hh; α_hh) + LN(x·W_ih; α_ih) + bias
    c' = σ(z_f) ⊙ c + σ(z_i) ⊙ tanh(z_g)         h' = σ(z_o) ⊙ tanh(LN(c'; α_c) + bias_c)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from charlstm.model import gates
from charlstm.model.compute import Compute
from charlstm.model.look_up import look_up
from charlstm.model.projection import project

Layer = Mapping[str, jax.Array]  # the parameters of one layer, by name
Gates = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # i, f, g, o

EPSILON = 1e-5


class Cell:
    """One kind of layer; a frozen value, for it is an argument of compiled functions.

    Every cell has four gates, whose pre-activations lie one after the other: 4H features. Its
    methods are called with vectors `own` of any shape that broadcasts, with the features along
    `axis`, and with leading dimensions of streams, or of time steps and streams.

    Attributes:
      name: in records; empty for the plain LSTM.
      vectors: the vectors that a layer has beside `weight_ih`, `weight_hh` and `bias`: by name,
        their length in multiples of H, and their initial value.
      is_additive: True if `input_share` adds the bias and nothing else, and the pre-activations
        are share + recurrent: then both products can be made as one.
      keeps_share: True if the gradient of a time step reads its share again.
    """

    name: ClassVar[str]
    vectors: ClassVar[Mapping[str, tuple[int, float]]] = {}
    is_additive: ClassVar[bool] = False
    keeps_share: ClassVar[bool] = False

    def input_share(self, layer: Layer, product: jax.Array, axis: int) -> jax.Array:
        """Returns the input's share of the pre-activations, bias included.

        Args:
          layer: the vectors of the layer, of shapes that broadcast against `product`.
          product: x·W_ih float32, features 4H along `axis`.
          axis: of the features.
        """
        raise NotImplementedError

    def project(self, compute: Compute, inputs: jax.Array, layer: Layer) -> jax.Array:
        """Returns the input's share for a whole window, [T, B, 4H] in the compute dtype.

        Args:
          compute: the dtype of the product's inputs and of the result.
          inputs: symbols [T, B], which look up rows of `weight_ih`; or [T, B, F] floats in the
            compute dtype.
          layer: `weight_ih` [V or F, 4H] and the layer's vectors, float32.
        """
        if inputs.ndim == 3:
            return self.project_floats(compute.dtype, inputs, layer)
        # The share is made of the V rows of the table, and not of T·B rows.
        table = self.input_share(layer, layer["weight_ih"], -1)
        return look_up(compute.target, table.astype(compute.dtype), inputs)

    def project_floats(self, dtype: Any, inputs: jax.Array, layer: Layer) -> jax.Array:
        """Does what `project` does, for inputs [T, B, F] in `dtype`."""
        raise NotImplementedError

    def step_parameters(self, layer: Layer) -> Any:
        """Returns what a time step reads beside its share and `weight_hh`: a pytree of vectors."""
        return ()

    def activations(self, own: Any, share: jax.Array, recurrent: jax.Array, axis: int) -> Gates:
        """Returns the gates i, f, g and o of a time step, float32; inspection shows them."""
        raise NotImplementedError

    def forward(
        self, own: Any, share: jax.Array, recurrent: jax.Array, c: jax.Array, axis: int, dtype: Any
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Makes one time step.

        Args:
          own: of `step_parameters`.
          share: the input's share, float32, features 4H along `axis`.
          recurrent: h·W_hh, float32, as `share`.
          c: the cell state before, float32, features H along `axis`.
          axis: of the features.
          dtype: of what is saved.

        Returns:
          h' and c', float32, and what `backward` needs.
        """
        raise NotImplementedError

    def backward(
        self, own: Any, share: Any, saved: Any, dh: jax.Array, dc: jax.Array, axis: int, dtype: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
        """Returns the gradients of one time step.

        Args:
          own: as for `forward`.
          share: the input's share in the compute dtype if the cell keeps it; else ().
          saved: of `forward`.
          dh: the gradient with respect to h', float32.
          dc: with respect to c', not counting the path through h'; float32.
          axis: of the features.
          dtype: of the gradients of the two shares.

        Returns:
          The gradients with respect to share, recurrent, c and own.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Lstm(Cell):
    """The LSTM of `gates`."""

    name: ClassVar[str] = ""
    is_additive: ClassVar[bool] = True

    def input_share(self, layer: Layer, product: jax.Array, axis: int) -> jax.Array:
        """See `Cell`."""
        return product + layer["bias"]

    def project_floats(self, dtype: Any, inputs: jax.Array, layer: Layer) -> jax.Array:
        """See `Cell`."""
        return project(dtype, inputs, layer["weight_ih"], layer["bias"])

    def activations(self, own: Any, share: jax.Array, recurrent: jax.Array, axis: int) -> Gates:
        """See `Cell`."""
        return gates.activations(share + recurrent, axis)

    def forward(
        self, own: Any, share: jax.Array, recurrent: jax.Array, c: jax.Array, axis: int, dtype: Any
    ) -> tuple[jax.Array, jax.Array, gates.Factors]:
        """See `Cell`; the factors of the derivative are saved."""
        h, c, factors = gates.forward(share + recurrent, c, axis)
        return h, c, jax.tree.map(lambda factor: factor.astype(dtype), factors)

    def backward(
        self, own: Any, share: Any, saved: Any, dh: jax.Array, dc: jax.Array, axis: int, dtype: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array, tuple[()]]:
        """See `Cell`."""
        dz_gates, dc = gates.backward(dh, dc, saved)
        dz = jnp.concatenate(dz_gates, axis=axis).astype(dtype)
        return dz, dz, dc, ()


class Norms(NamedTuple):
    """The vectors that a time step of `LayerNormLstm` normalizes with; float32."""

    gain_hh: jax.Array  # [4H]
    gain_c: jax.Array  # [H]
    bias_c: jax.Array  # [H]


@dataclasses.dataclass(frozen=True)
class LayerNormLstm(Cell):
    """The LSTM with layer normalization; everything but the products is in float32."""

    name: ClassVar[str] = "layer norm"
    vectors: ClassVar[Mapping[str, tuple[int, float]]] = {
        "gain_ih": (4, 1.0),
        "gain_hh": (4, 1.0),
        "gain_c": (1, 1.0),
        "bias_c": (1, 0.0),
    }
    keeps_share: ClassVar[bool] = True

    def input_share(self, layer: Layer, product: jax.Array, axis: int) -> jax.Array:
        """See `Cell`."""
        return normalize(product, layer["gain_ih"], axis) + layer["bias"]

    def project_floats(self, dtype: Any, inputs: jax.Array, layer: Layer) -> jax.Array:
        """See `Cell`."""
        product = project(dtype, inputs, layer["weight_ih"], jnp.zeros_like(layer["bias"]))
        return self.input_share(layer, product.astype(jnp.float32), -1).astype(dtype)

    def step_parameters(self, layer: Layer) -> Norms:
        """See `Cell`."""
        return Norms(layer["gain_hh"], layer["gain_c"], layer["bias_c"])

    def activations(self, own: Norms, share: jax.Array, recurrent: jax.Array, axis: int) -> Gates:
        """See `Cell`."""
        return gates.activations(share + normalize(recurrent, own.gain_hh, axis), axis)

    def forward(
        self,
        own: Norms,
        share: jax.Array,
        recurrent: jax.Array,
        c: jax.Array,
        axis: int,
        dtype: Any,
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
        """See `Cell`; the recurrent share and the cell state before are saved."""
        h, c_after = self._step(own, share, recurrent, c, axis)
        return h, c_after, (recurrent.astype(dtype), c)

    def backward(
        self,
        own: Norms,
        share: jax.Array,
        saved: tuple[jax.Array, jax.Array],
        dh: jax.Array,
        dc: jax.Array,
        axis: int,
        dtype: Any,
    ) -> tuple[jax.Array, jax.Array, jax.Array, Norms]:
        """See `Cell`; what is elementwise is differentiated automatically."""
        recurrent, c = saved

        def step(own: Norms, share: jax.Array, recurrent: jax.Array, c: jax.Array) -> Any:
            return self._step(own, share, recurrent, c, axis)

        at = own, share.astype(jnp.float32), recurrent.astype(jnp.float32), c
        d_own, d_share, d_recurrent, dc = jax.vjp(step, *at)[1]((dh, dc))
        return d_share.astype(dtype), d_recurrent.astype(dtype), dc, d_own

    def _step(
        self, own: Norms, share: jax.Array, recurrent: jax.Array, c: jax.Array, axis: int
    ) -> tuple[jax.Array, jax.Array]:
        i, f, g, o = self.activations(own, share, recurrent, axis)
        c_after = f * c + i * g
        return o * jnp.tanh(normalize(c_after, own.gain_c, axis) + own.bias_c), c_after


def normalize(z: jax.Array, gain: jax.Array, axis: int) -> jax.Array:
    """Returns LN(z; gain) over `axis`; float32."""
    mean = jnp.mean(z, axis=axis, keepdims=True)
    variance = jnp.mean(jnp.square(z - mean), axis=axis, keepdims=True)
    return gain * (z - mean) * jax.lax.rsqrt(variance + EPSILON)


def cell_for(layer_norm: bool) -> Cell:
    """Returns the cell that `model.layer_norm` stands for."""
    return LayerNormLstm() if layer_norm else Lstm()
