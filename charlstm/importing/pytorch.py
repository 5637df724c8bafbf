"""Recognizes a language model of PyTorch among the tensors of its state_dict.

What is needed, under names that may have anything before or after it:

    weight_ih_l{k}, weight_hh_l{k}   [4H, F], [4H, H]   of one nn.LSTM, of one direction, with
    bias_ih_l{k}, bias_hh_l{k}       [4H], or neither   k = 0, 1, …; F is H above the first layer
    the head                         [V, H], and a bias [V] or none: nn.Linear
    an embedding                     [V, F], or none: then the LSTM reads one-hot vectors, F = V

The head and the embedding are told apart by their shapes, by the bias beside the head, and if need
be by words in their names. If the two share one tensor, that is enough.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from charlstm.errors import UserError
from charlstm.model.named_tensors import sum_of_biases
from charlstm.model.parameters import Params

Tensors = Mapping[str, np.ndarray]

_OF_LSTM = re.compile(
    r"(?P<prefix>.*?)(?P<kind>(?:weight|bias)_(?:ih|hh|hr))_l(?P<layer>\d+)(?P<back>_reverse)?"
)
_EMBEDDING = re.compile("emb|encoder|wte|token|look_?up", re.IGNORECASE)
_HEAD = re.compile("head|decoder|out|fc|linear|proj|logit|dense|classif", re.IGNORECASE)
_NEEDED = (
    "needed are weight_ih_l0 [4H, F], weight_hh_l0 [4H, H], bias_ih_l0 and bias_hh_l0 [4H] (and so "
    "on, of one nn.LSTM), a head [V, H] with a bias [V] or none, and perhaps an embedding [V, F]"
)
_MOST_NAMED = 12  # tensors in a message


@dataclasses.dataclass(frozen=True)
class Found:
    """Holds a model that was recognized.

    Attributes:
      params: float32.
      names: of the tensors that are its `head` and `embedding`, for the user to see.
    """

    params: Params
    names: dict[str, str]


def recognize(tensors: Tensors, path: str) -> Found:
    """Returns the model that tensors make up.

    Args:
      tensors: of any float dtype.
      path: of their file, for messages.

    Raises:
      UserError: they are not one model of the kind above; the line names what was found.
    """
    try:
        return _recognized(_as_float32(tensors))
    except ValueError as error:
        found = [f"{name} {list(array.shape)}" for name, array in tensors.items()]
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        listed = ", ".join(found[:_MOST_NAMED]) or "nothing"
        raise UserError(
            f"{path} is no byte LSTM that charlstm can import: {error}; found are {listed}{more}; "
            f"{_NEEDED}"
        ) from None


def _as_float32(tensors: Tensors) -> dict[str, np.ndarray]:
    wide = {}
    for name, array in tensors.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} is of {array.dtype.name}, which is no parameter")
        wide[name] = array.astype(np.float32)
        if not np.isfinite(wide[name]).all():
            raise ValueError(f"{name} has values that are not finite")
    return wide


def _recognized(tensors: Tensors) -> Found:
    of_lstm, others = {}, {}
    prefixes = set()
    for name, array in tensors.items():
        match = _OF_LSTM.fullmatch(name)
        if match is None:
            others[name] = array
            continue
        if match["back"]:
            raise ValueError(f"{name} is of a bidirectional LSTM")
        if match["kind"].endswith("hr"):
            raise ValueError(f"{name} is of an LSTM with proj_size")
        prefixes.add(match["prefix"])
        of_lstm[match["kind"], int(match["layer"])] = array
    if not prefixes:
        raise ValueError("no tensor is named weight_ih_l0, perhaps behind a prefix")
    if len(prefixes) > 1:
        raise ValueError(f"there are {len(prefixes)} recurrent modules, {_listed(prefixes)}")
    layers = _layers(of_lstm, prefixes.pop())
    inputs, hidden = layers["0"]["weight_ih"].shape[0], layers["0"]["weight_hh"].shape[0]
    head, bias, embedding = _head_and_embedding(others, inputs, hidden)
    kernel = others[head].T
    params: Params = {
        "layers": layers,
        "head": {
            "kernel": kernel,
            "bias": others[bias] if bias else np.zeros(kernel.shape[1], np.float32),
        },
    }
    names = {"head": head}
    if embedding:
        params["embedding"], names["embedding"] = others[embedding], embedding
    return Found(params, names)


def _layers(tensors: Mapping[tuple[str, int], np.ndarray], prefix: str) -> Params:
    """Returns the layers; raises `ValueError` for tensors that are missing or of other shapes."""
    num_layers = 1 + max(layer for _, layer in tensors)
    kinds = ["weight_hh", "weight_ih"]
    if any(kind.startswith("bias") for kind, _ in tensors):
        kinds += ["bias_ih", "bias_hh"]
    layers: Params = {}
    hidden = 0
    for layer in range(num_layers):
        arrays = {}
        for kind in kinds:
            if (kind, layer) not in tensors:
                raise ValueError(f"{prefix}{kind}_l{layer} is missing")
            arrays[kind] = tensors[kind, layer]
        hidden = hidden or max([1, *arrays["weight_hh"].shape[1:2]])
        inputs = hidden if layer else max([1, *arrays["weight_ih"].shape[1:2]])
        for kind, array in arrays.items():
            shape = {"weight_ih": (4 * hidden, inputs), "weight_hh": (4 * hidden, hidden)}.get(
                kind, (4 * hidden,)
            )
            if array.shape != shape:
                raise ValueError(
                    f"{prefix}{kind}_l{layer} is {list(array.shape)}, and of an LSTM of H={hidden} "
                    f"it is {list(shape)}"
                )
        layers[str(layer)] = {
            "weight_ih": arrays["weight_ih"].T,
            "weight_hh": arrays["weight_hh"].T,
            "bias": (
                sum_of_biases(arrays["bias_ih"], arrays["bias_hh"])
                if "bias_ih" in arrays
                else np.zeros(4 * hidden, np.float32)
            ),
        }
    return layers


def _head_and_embedding(others: Tensors, inputs: int, hidden: int) -> tuple[str, str, str]:
    """Returns the names of the head, its bias and the embedding, the last two empty for none.

    Args:
      others: what is not of the LSTM.
      inputs: F of the first layer.
      hidden: H.
    """
    matrices = [name for name, array in others.items() if array.ndim == 2]
    vectors = [name for name, array in others.items() if array.ndim == 1]
    unknown = others.keys() - {*matrices, *vectors}
    if unknown or len(matrices) > 2 or len(vectors) > 1:
        extra = sorted(unknown) or (matrices if len(matrices) > 2 else vectors)
        raise ValueError(f"there is more than a head and an embedding, {_listed(extra)}")
    heads = [name for name in matrices if others[name].shape[1] == hidden]
    if not heads:
        raise ValueError(f"no tensor is a head [V, {hidden}]")
    head = heads[0] if len(heads) == 1 else _named_head(heads, vectors)
    size = others[head].shape[0]
    bias = vectors[0] if vectors else ""
    if bias and others[bias].shape != (size,):
        raise ValueError(f"{bias} is no bias of the head {head}")
    if len(matrices) == 1:
        if inputs == size:
            return head, bias, ""
        if inputs == hidden:  # the head and the embedding share their weights
            return head, bias, head
        raise ValueError(
            f"the LSTM reads {inputs} inputs and the head {head} has {size} symbols, and there is "
            f"no embedding [{size}, {inputs}]"
        )
    embedding = next(name for name in matrices if name != head)
    if others[embedding].shape != (size, inputs):
        raise ValueError(f"{embedding} is no embedding [{size}, {inputs}]")
    return head, bias, embedding


def _named_head(candidates: list[str], vectors: list[str]) -> str:
    """Returns which of two tensors of one shape is the head: by its bias, or by their names."""
    for is_head in (
        lambda name: name.removesuffix("weight") + "bias" in vectors,
        lambda name: not _EMBEDDING.search(name),
        lambda name: bool(_HEAD.search(name)),
    ):
        named = [name for name in candidates if is_head(name)]
        if len(named) == 1:
            return named[0]
    raise ValueError(
        f"{_listed(candidates)} have one shape: name the embedding with emb, or the head with head"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
