"""A model in one safetensors file, under the names and in the layout of PyTorch's `nn.LSTM`.

charlstm reads it wherever it reads a checkpoint; see `charlstm.checkpoint.exported`.
"""

from pathlib import Path

import jax.numpy as jnp

from charlstm.checkpoint import exported
from charlstm.checkpoint.metadata import Metadata
from charlstm.model.language_model import LanguageModel
from charlstm.storage import outputs


def write(model: LanguageModel, metadata: Metadata, output: Path, dtype: str) -> list[str]:
    """Writes the file; see `charlstm.exporting`."""
    outputs.write(output, exported.encoded(model.params, metadata, jnp.dtype(dtype)))
    return []
