"""The computation of products: the dtype of their inputs, and the target they are compiled for."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from charlstm.config import ModelConfig
from charlstm.runtime.targets import Target

# From this hidden size on a CPU with AMX is faster in bfloat16, as measured: benchmarks/README.md.
BFLOAT16_FROM = 128


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
    def of(cls, model: ModelConfig, target: Target) -> "Compute":
        """Resolves `model.compute_dtype`: auto is bfloat16 where that is faster.

        It is so on every accelerator, and on a CPU with AMX but for narrow layers.
        """
        dtype: str = model.compute_dtype
        if dtype == "auto":
            is_slow = target.is_cpu and not (target.has_amx and model.hidden_size >= BFLOAT16_FROM)
            dtype = "float32" if is_slow else "bfloat16"
        return cls(jnp.dtype(dtype), target)
