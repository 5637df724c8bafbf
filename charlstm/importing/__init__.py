"""Makes run folders of models that are in one file: of `charlstm export`, or of PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from charlstm.checkpoint import exported, shipped, tensor_files
from charlstm.checkpoint.failures import reading
from charlstm.checkpoint.metadata import UNKNOWN_CORPUS
from charlstm.config import Config
from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError, in_one_line
from charlstm.importing import pytorch
from charlstm.model import parameters
from charlstm.model.parameters import Params
from charlstm.storage import paths

_PICKLES = b"PK\x03\x04", b"\x80\x02"  # how files of torch.save begin


class Imported(NamedTuple):
    """Holds a model that was read from a file.

    Attributes:
      config: of a run that goes on from it.
      alphabet: of the model.
      params: float32.
      corpus: of the text that it was trained on, as a checkpoint records it.
      source: the path of the file.
      notes: on what it was recognized by, a line each.
    """

    config: Config
    alphabet: Alphabet
    params: Params
    corpus: dict[str, Any]
    source: str
    notes: list[str]


def read(
    path: str, alphabet_of: str | None = None, fields: Mapping[str, Any] | None = None
) -> Imported:
    """Reads a model from a safetensors file.

    Args:
      path: of the file; or the name of a model that comes with charlstm.
      alphabet_of: a text whose different bytes, in order, are the symbols of a model of PyTorch.
      fields: of the configuration, by address, that are to differ.

    Raises:
      UserError: it is no such file, no model is recognized in it, its alphabet is not known, or a
        field does not go with it.
    """
    file = shipped.find(path) or paths.local(path)
    _require_file(path, file)
    texts = reading(file, lambda: tensor_files.read_texts(file))
    if "config" in texts and "alphabet" in texts:
        if alphabet_of is not None:
            raise UserError(f"{path} has its alphabet in it: leave --alphabet_of out")
        found = _of_charlstm(path, file)
    else:
        found = _of_pytorch(path, file, texts, alphabet_of)
    config = found.config.replace(fields or {})
    for name, value in found.config.to_json()["model"].items():
        changed = getattr(config.model, name)
        is_of_weights = name in _OF_WEIGHTS
        if is_of_weights and changed != value:
            raise UserError(
                f"{path} has model.{name}={value}: leave --config.model.{name}={changed} out"
            )
    return found._replace(config=config)


# Fields that the weights decide.
_OF_WEIGHTS = (
    "num_layers",
    "hidden_size",
    "parameter_budget",
    "embedding_size",
    "layer_norm",
    "connections",
    "alphabet",
)


def _require_file(path: str, file: Path) -> None:
    if file.is_dir():
        raise UserError(
            f"{path} is a folder, and an import takes a .safetensors file: a run or checkpoint of "
            "charlstm is used as it is, and train --init_from begins a new run with its weights"
        )
    if not file.exists():
        raise UserError(f"no such file: {path}{shipped.hint(path)}")
    with file.open("rb") as opened:
        if opened.read(4).startswith(_PICKLES):
            raise UserError(
                f"{path} is of torch.save, and may hold code that runs when it is read: write a "
                "safetensors file, safetensors.torch.save_file(model.state_dict(), "
                "'model.safetensors')"
            )


def _of_charlstm(path: str, file: Path) -> Imported:
    metadata = exported.read_metadata(file)
    device = jax.local_devices(backend="cpu")[0]
    params = exported.read_params(file, metadata, jax.sharding.SingleDeviceSharding(device))
    params = jax.tree.map(np.asarray, params)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise UserError(f"{path} has parameters that are not finite: export another checkpoint")
    # Which devices it was trained on does not count here.
    here = {"mesh.data": 0, "mesh.model": 1, "mesh.shard": "nothing", "model.recurrence": "auto"}
    config = metadata.config.replace(here | {"model.parameter_budget": 0.0})
    corpus = dict(metadata.corpus)
    return Imported(config, metadata.alphabet, params, corpus, shipped.absolute(path), [])


def _of_pytorch(
    path: str, file: Path, texts: Mapping[str, str], alphabet_of: str | None
) -> Imported:
    found = pytorch.recognize(reading(file, lambda: tensor_files.read_tensors(file)), path)
    num_layers, hidden_size = parameters.stack_shape(found.params)
    size = found.params["head"]["bias"].shape[0]
    alphabet = _alphabet(path, size, texts, alphabet_of)
    embedding = found.params.get("embedding")
    config = Config().replace(
        {
            "model.num_layers": num_layers,
            "model.hidden_size": hidden_size,
            "model.embedding_size": 0 if embedding is None else embedding.shape[1],
            "model.alphabet": alphabet.kind,
            # Not the default: nobody has said that the model is to be trained on that.
            "data.corpus": alphabet_of or "",
        }
    )
    named = [f"the {what} is {name!r}" for what, name in found.names.items()]
    source = shipped.absolute(path)
    return Imported(config, alphabet, found.params, dict(UNKNOWN_CORPUS), source, named)


def _alphabet(path: str, size: int, texts: Mapping[str, str], alphabet_of: str | None) -> Alphabet:
    """Returns the alphabet of a model of V symbols."""
    if alphabet_of is not None:
        alphabet, source = Alphabet.of("corpus", open_corpus(alphabet_of).data), alphabet_of
    elif "alphabet" in texts:
        source = f"the alphabet in the header of {path}"
        try:
            alphabet = Alphabet.from_json(json.loads(texts["alphabet"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{source} is not of the form {{'kind': 'corpus', 'symbols': [10, 32, …]}} "
                f"({in_one_line(error)}): leave it out, and give --alphabet_of=TEXTFILE"
            ) from error
    elif size == 256:
        return Alphabet("bytes", bytes(range(256)))
    else:
        raise UserError(
            f"{path} has {size} symbols, and which bytes they stand for is not in it: give the "
            "text that it was trained on, --alphabet_of=TEXTFILE, whose different bytes in "
            "ascending order they are"
        )
    if alphabet.size != size:
        raise UserError(
            f"{path} has {size} symbols, and {source} has {alphabet.size} different bytes: give "
            "the text whose bytes, in ascending order, are the model's symbols"
        )
    return alphabet
