"""A model in one file of the safetensors format: what `charlstm export` writes, and how it is read.

The tensors are those of `charlstm.model.named_tensors`. The header has these texts:

    format, format_version   `charlstm` and the version of this page's texts
    config, alphabet         JSON of `Config` and `Alphabet`
    reset_every              bytes after which the state is to be set to zero; 0 for never
    corpus                   JSON: name, sha256 and num_bytes of the text that it was trained on
    training                 JSON: updates, seconds, and updates skipped
    metrics, versions        JSON, as in a checkpoint
    digest                   XXH3-128 of all tensors, the configuration and the alphabet

A file needs config and alphabet alone; the digest is compared if it is there. Other formats carry
the same texts where they have room for them.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

from charlstm.checkpoint import tensor_files
from charlstm.checkpoint.failures import reading
from charlstm.checkpoint.metadata import UNKNOWN_CORPUS, Metadata
from charlstm.errors import UserError
from charlstm.model import named_tensors
from charlstm.model.parameters import Params
from charlstm.runtime import meshes
from charlstm.storage import paths

FORMAT, FORMAT_VERSION = "charlstm", 1


def texts_of(metadata: Metadata) -> dict[str, str]:
    """Returns the texts that tell of a model, all but the digest.

    Of its corpus there are the name and, in the configuration, what `data.corpus` was set to.
    """
    corpus = {name: value for name, value in metadata.corpus.items() if name != "source"}
    clock = metadata.clock
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(metadata.config.to_json()),
        "alphabet": json.dumps(metadata.alphabet.to_json()),
        "reset_every": str(metadata.config.data.reset_every),
        "corpus": json.dumps(corpus),
        "training": json.dumps({name: clock.get(name, 0) for name in _TRAINING}),
        "metrics": json.dumps(metadata.metrics),
        "versions": json.dumps(metadata.versions),
    }


def encoded(params: Params, metadata: Metadata, dtype: Any) -> bytes:
    """Returns the content of a file.

    Args:
      params: float32.
      metadata: of the model.
      dtype: of the tensors in the file; float32 keeps every bit.
    """
    tensors = named_tensors.to_tensors(jax.device_get(params))
    tensors = {name: array.astype(dtype) for name, array in tensors.items()}
    texts = texts_of(metadata)
    return tensor_files.encoded(tensors, texts | {"digest": _digest(tensors, texts)})


def read_metadata(path: Path) -> Metadata:
    """Reads what a file says of its model; its `clock` says after how many `updates`.

    Raises:
      DamagedCheckpoint: it cannot be read, or is no safetensors file.
      UserError: it has no configuration, or is of a newer format.
    """
    texts = reading(path, lambda: tensor_files.read_texts(path))
    if "config" not in texts or "alphabet" not in texts:
        raise UserError(
            f"{path} does not say what model it is (no config and alphabet in its header): if it "
            f"was made by PyTorch, make a run of it, charlstm import {path} --output=RUN"
        )
    version = texts.get("format_version", "1")
    if version.isdecimal() and int(version) > FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, and this charlstm reads formats up to {FORMAT_VERSION}: "
            "update it (pip install --upgrade charlstm)"
        )
    return reading(path, lambda: _metadata(texts))


def read_params(path: Path, metadata: Metadata, sharding: jax.sharding.Sharding) -> Params:
    """Reads the parameters of a file, float32, laid out by `sharding`.

    Raises:
      DamagedCheckpoint: they are not as they were written, or not what the configuration says.
    """

    def read() -> Params:
        texts, tensors = tensor_files.read_texts(path), tensor_files.read_tensors(path)
        if "digest" in texts and texts["digest"] != _digest(tensors, texts):
            raise ValueError("its tensors are not as they were written")
        for name, array in tensors.items():
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise ValueError(f"{name} is of {array.dtype.name}, which is no parameter")
        wide = {name: array.astype(np.float32) for name, array in tensors.items()}
        size = metadata.alphabet.size
        return named_tensors.from_tensors(wide, metadata.config.model, size)

    params = reading(path, read)
    if isinstance(sharding, jax.NamedSharding):
        return jax.tree.map(lambda leaf: meshes.put(leaf, sharding), params)
    return jax.device_put(params, sharding)


_TRAINING = ("updates", "seconds", "skipped")


def _metadata(texts: Mapping[str, str]) -> Metadata:
    clock = dict.fromkeys(_TRAINING, 0) | json.loads(texts.get("training", "{}"))
    if type(clock["updates"]) is not int:
        raise ValueError("it has no valid number of updates")
    values = {
        "config": json.loads(texts["config"]),
        "alphabet": json.loads(texts["alphabet"]),
        "corpus": json.loads(texts.get("corpus", json.dumps(UNKNOWN_CORPUS))),
        "clock": clock,
        "metrics": json.loads(texts.get("metrics", "{}")),
        "versions": json.loads(texts.get("versions", "{}")),
    }
    found = Metadata.from_json(values)
    if paths.is_address(found.config.data.corpus):  # whoever made the file may not choose it
        found = dataclasses.replace(found, config=found.config.replace({"data.corpus": ""}))
    return found


def _digest(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    digest = xxhash.xxh3_128()
    for name in ("config", "alphabet"):
        digest.update(texts[name].encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
