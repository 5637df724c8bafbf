"""A model as a StableHLO program in the file format of `jax.export`, the weights in it.

    (symbols [T, B] int32, h0 [L, B, H], c0 [L, B, H])  →  (logits [T, B, V], h1, c1)

All else is float32, and so are the products, on every platform. T and B are free, and one file
serves CPUs, NVIDIA GPUs and TPUs. The format has no room for texts: those of
`charlstm.checkpoint.exported` are in a JSON file beside it.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.checkpoint import exported
from charlstm.checkpoint.metadata import Metadata
from charlstm.exporting import extras
from charlstm.model.compute import Compute
from charlstm.model.language_model import LanguageModel
from charlstm.model.recurrence import Scan
from charlstm.runtime.targets import Target
from charlstm.storage import outputs

PLATFORMS = "cpu", "cuda", "tpu"


def write(model: LanguageModel, metadata: Metadata, output: Path, dtype: str) -> list[str]:
    """Writes the program, and the texts beside it; see `charlstm.exporting`."""
    content = model_bytes(model)
    texts = output.with_name(f"{output.name}.json")
    outputs.write(texts, (json.dumps(_values(metadata), indent=2) + "\n").encode())
    outputs.write(output, content)
    return [f"the alphabet and the configuration are beside it, in {texts.name}"]


def model_bytes(model: LanguageModel) -> bytes:
    """Returns the content of the file.

    Raises:
      UserError: the library `flatbuffers` is missing.
    """
    extras.load("flatbuffers", "stablehlo")
    from jax import export

    # The plain scan is the one time loop that all platforms have.
    compute = Compute(jnp.dtype(jnp.float32), Target("cpu", "any"))
    network = model.network.replace(recurrence=Scan(), compute=compute)
    params = jax.device_get(model.params)

    def window(symbols: jax.Array, h0: jax.Array, c0: jax.Array) -> Any:
        with jax.default_matmul_precision("highest"):
            logits, after = network.apply(params, {"h": h0, "c": c0}, symbols)
        return logits, after["h"], after["c"]

    steps, batch = export.symbolic_shape("T, B")
    num_layers, hidden = model.shape
    state = jax.ShapeDtypeStruct((num_layers, batch, hidden), jnp.float32)
    symbols = jax.ShapeDtypeStruct((steps, batch), jnp.int32)
    program = export.export(jax.jit(window), platforms=PLATFORMS)(symbols, state, state)
    return bytes(program.serialize())


def _values(metadata: Metadata) -> dict[str, Any]:
    """Returns the texts with what is JSON in them as values."""
    texts = exported.texts_of(metadata)
    return texts | {name: json.loads(text) for name, text in texts.items() if name != "format"}
