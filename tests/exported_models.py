"""Models of every kind, untrained and small, and what a checkpoint would say of them."""

import dataclasses
import json

import jax
import numpy as np

from charlstm.checkpoint.metadata import Metadata
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.model.language_model import LanguageModel
from charlstm.runtime.targets import Target

# Fields by the names of networks that differ in what has to be written of them.
KINDS = {
    "one layer": {"model.num_layers": 1},
    "plain": {"model.num_layers": 3},
    "embedding": {"model.embedding_size": 5},
    "layer norm": {"model.layer_norm": True},
    "residual": {"model.num_layers": 3, "model.connections": "residual"},
    "skip": {"model.num_layers": 3, "model.connections": "skip"},
    "all": {
        "model.num_layers": 3,
        "model.embedding_size": 5,
        "model.layer_norm": True,
        "model.connections": "residual",
    },
}
SYMBOLS = b"\n abcdefghij"


def make_model(kind="plain", symbols=SYMBOLS, hidden_size=8, **fields):
    """A model whose every number differs from those around it, and its metadata."""
    fields = {f"model.{name}": value for name, value in fields.items()}
    base = {"model.hidden_size": hidden_size, "model.compute_dtype": "float32"}
    alphabet = Alphabet("bytes" if len(symbols) == 256 else "corpus", symbols)
    config = Config().replace(base | KINDS[kind] | {"model.alphabet": alphabet.kind} | fields)
    model = LanguageModel.initialize(config, alphabet, Target.of_this_machine())
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: np.array(leaf + 0.3 * rng.normal(size=leaf.shape), np.float32), model.params
    )
    params["layers"]["0"]["bias"][0] = -0.0  # whose bits a sum with 0 would change
    metadata = Metadata(
        config=config,
        alphabet=alphabet,
        corpus={"name": "a", "sha256": "0" * 64, "num_bytes": 9, "source": "/home/me/a"},
        clock={"seconds": 1.5, "skipped": 0, "updates": 7},
        metrics={"valid_bits_per_byte": 2.5},
        versions={"charlstm": "0.1.0"},
    )
    return model.replace(params=jax.tree.map(jax.numpy.asarray, params)), metadata


def random_inputs(model, steps, batch, seed=0):
    """Symbols [T, B] int32 and a state {"h", "c"} [L, B, H] float32."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, model.alphabet.size, (steps, batch)).astype(np.int32)
    layers, hidden = model.shape
    h, c = rng.normal(size=(2, layers, batch, hidden)).astype(np.float32)
    return symbols, {"h": np.tanh(h), "c": c}


def with_fields(metadata, fields):
    return dataclasses.replace(metadata, config=metadata.config.replace(fields))


def header_of(path):
    """The texts of a safetensors file's header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def with_header(content, change):
    """The content of a safetensors file with another header: `change` makes it of the JSON."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(change(json.loads(content[8 : 8 + length]))).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
