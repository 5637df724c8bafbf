"""The parameters as named tensors, in the layout of PyTorch's `nn.LSTM`, for files.

With k counted from 0, L layers, hidden size H, V symbols and F inputs of a layer:

    lstm.weight_ih_l{k}   [4H, F]   gates i, f, g, o one after the other; F is V in the first layer
    lstm.weight_hh_l{k}   [4H, H]
    lstm.bias_ih_l{k}     [4H]      the bias
    lstm.bias_hh_l{k}     [4H]      zeros: nn.LSTM adds two biases
    lstm.VECTOR_l{k}      [4H], [H] the other vectors of a cell, see `Cell.vectors`
    head.weight           [V, H]
    head.bias             [V]
    embedding.weight      [V, E]    where the model has one; F of the first layer is E then

charlstm has the gates in the order of nn.LSTM, so that its matrices are only transposed.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from charlstm.config import ModelConfig
from charlstm.model.cell import cell_for
from charlstm.model.parameters import Params

EMBEDDING = "embedding.weight"

Tensors = Mapping[str, np.ndarray]


def to_tensors(params: Params) -> dict[str, np.ndarray]:
    """Returns the tensors of parameters; float32, contiguous."""
    found: dict[str, np.ndarray] = {}
    if "embedding" in params:
        found[EMBEDDING] = params["embedding"]
    for index in range(len(params["layers"])):
        for name, array in params["layers"][str(index)].items():
            if name == "bias":
                found[f"lstm.bias_ih_l{index}"] = array
                found[f"lstm.bias_hh_l{index}"] = np.zeros_like(array)
            else:
                found[f"lstm.{name}_l{index}"] = array.T
    found["head.weight"], found["head.bias"] = params["head"]["kernel"].T, params["head"]["bias"]
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def from_tensors(tensors: Tensors, model: ModelConfig, alphabet_size: int) -> Params:
    """Is the inverse of `to_tensors`, to the last bit.

    Args:
      tensors: float32.
      model: the sizes and the cell.
      alphabet_size: V.

    Raises:
      ValueError: a tensor is missing, is one too many, or has another shape.
    """
    expected = dict(_shapes(model, alphabet_size))
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"it has no tensor {name}")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise ValueError(f"{name} has shape {found}, and its configuration says {list(shape)}")
    for name in tensors.keys() - expected.keys():
        raise ValueError(f"{name} is no tensor of the model that its configuration describes")
    vectors = cell_for(model.layer_norm).vectors
    layers = {}
    for index in range(model.num_layers):
        layers[str(index)] = {
            "weight_ih": tensors[f"lstm.weight_ih_l{index}"].T,
            "weight_hh": tensors[f"lstm.weight_hh_l{index}"].T,
            "bias": sum_of_biases(
                tensors[f"lstm.bias_ih_l{index}"], tensors[f"lstm.bias_hh_l{index}"]
            ),
        } | {name: tensors[f"lstm.{name}_l{index}"] for name in vectors}
    head = {"kernel": tensors["head.weight"].T, "bias": tensors["head.bias"]}
    params: Params = {"layers": layers, "head": head}
    if model.embedding_size:
        params["embedding"] = tensors[EMBEDDING]
    return params


def sum_of_biases(bias_ih: np.ndarray, bias_hh: np.ndarray) -> np.ndarray:
    """Returns the sum; if the second is all zeros the first itself, for -0 + 0 has other bits."""
    return bias_ih + bias_hh if bias_hh.any() else bias_ih


def _shapes(model: ModelConfig, alphabet_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, gates = model.hidden_size, 4 * model.hidden_size
    if model.embedding_size:
        yield EMBEDDING, (alphabet_size, model.embedding_size)
    for index in range(model.num_layers):
        inputs = hidden if index else model.embedding_size or alphabet_size
        yield f"lstm.weight_ih_l{index}", (gates, inputs)
        yield f"lstm.weight_hh_l{index}", (gates, hidden)
        yield f"lstm.bias_ih_l{index}", (gates,)
        yield f"lstm.bias_hh_l{index}", (gates,)
        for name, (multiple, _) in cell_for(model.layer_norm).vectors.items():
            yield f"lstm.{name}_l{index}", (multiple * hidden,)
    yield "head.weight", (alphabet_size, hidden)
    yield "head.bias", (alphabet_size,)
