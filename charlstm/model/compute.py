"""The computation of products: the dtype of their inputs, and the target they are compiled for."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from charlstm.runtime.targets import Target


@dataclasses.dataclass(frozen=True)
class Compute:
    """Where and how precisely a network is computed.

    Attributes:
      dtype: of the inputs of products and of the activations saved for the gradient; float32 or
        bfloat16. Cell states, logits and losses are float32 in either.
      target: what the program is compiled for.
    """

    dtype: Any
    target: Target

    @classmethod
    def of(cls, compute_dtype: str, target: Target) -> "Compute":
        """Resolves `model.compute_dtype`: auto is float32 on a CPU and bfloat16 elsewhere."""
        if compute_dtype == "auto":
            compute_dtype = "float32" if target.is_cpu else "bfloat16"
        return cls(jnp.dtype(compute_dtype), target)
