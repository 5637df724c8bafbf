"""A model as an ONNX graph: symbols and a state in, logits and the state after out.

    symbols  [T, B] int64                  logits  [T, B, V] float32
    h0, c0   [L, B, H] float32             h1, c1  [L, B, H] float32

T and B are free. A plain layer is ONNX's LSTM operator; a layer with layer normalization is a Scan
over time steps. The model's metadata are the texts of `charlstm.checkpoint.exported`.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from charlstm.checkpoint import exported
from charlstm.checkpoint.metadata import Metadata
from charlstm.errors import UserError
from charlstm.exporting import extras
from charlstm.model.cell import EPSILON, Layer, LayerNormLstm
from charlstm.model.language_model import LanguageModel
from charlstm.model.stack import walk
from charlstm.storage import outputs

# Read by every runtime since 2022; the first that normalizes layers.
OPSET, IR_VERSION = 17, 8
# A file is one message of Protocol Buffers.
_MOST_BYTES = 2**31 - 2**20


def write(model: LanguageModel, metadata: Metadata, output: Path, dtype: str) -> list[str]:
    """Writes the file; see `charlstm.exporting`."""
    outputs.write(output, model_bytes(model, metadata))
    return []


def model_bytes(model: LanguageModel, metadata: Metadata) -> bytes:
    """Returns the content of the file.

    Raises:
      UserError: the library `onnx` is missing, or the model is too large for the format.
    """
    onnx = extras.load("onnx", "onnx")
    if 4 * model.num_parameters > _MOST_BYTES:
        raise UserError(
            f"a file of --format=onnx holds 2 GiB, and the model has {model.num_parameters:,} "
            "float32 parameters: use --format=safetensors"
        )
    graph = _Graph(onnx, model)
    texts = exported.texts_of(metadata)
    proto = onnx.helper.make_model(
        graph.finished(),
        producer_name="charlstm",
        producer_version=metadata.versions.get("charlstm", ""),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string="Logits of the next byte; the metadata's alphabet has the byte of each symbol.",
    )
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class _Graph:
    """The nodes and constants of a graph, as far as they have been added."""

    def __init__(self, onnx: Any, model: LanguageModel):
        self._onnx, self._model = onnx, model
        self._params = jax.device_get(model.params)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def finished(self) -> Any:
        """Returns the GraphProto."""
        make, types = self._onnx.helper.make_tensor_value_info, self._onnx.TensorProto
        (num_layers, hidden), size = self._model.shape, self._model.alphabet.size
        state = [num_layers, "B", hidden]
        inputs = [make("symbols", types.INT64, ["T", "B"])]
        inputs += [make(name, types.FLOAT, state) for name in ("h0", "c0")]
        outputs = [make("logits", types.FLOAT, ["T", "B", size])]
        outputs += [make(name, types.FLOAT, state) for name in ("h1", "c1")]
        self._add_network(num_layers)
        return self._onnx.helper.make_graph(
            self._nodes, "charlstm", inputs, outputs, initializer=self._constants
        )

    def _add_network(self, num_layers: int) -> None:
        names = {name: [f"{name}0_{index}" for index in range(num_layers)] for name in "hc"}
        for name, split in names.items():
            self._add("Split", [f"{name}0"], split, axis=0)  # into [1, B, H] each
        add_layer = self._add_normalized if self._is_normalized else self._add_plain

        def run_layer(index: int, inputs: Any, state: Any) -> Any:
            outputs, *state_after = add_layer(index, inputs and inputs.name, *state)
            return _Sum(self, outputs), state_after

        # The walk adds up whatever can be added.
        total: Any
        states: Any = list(zip(*names.values(), strict=True))
        total, after = walk(run_layer, None, states, None, self._model.network.connections)
        for name, parts in zip(("h1", "c1"), zip(*after, strict=True), strict=True):
            self._add("Concat", parts, [name], axis=0)
        head = self._params["head"]
        self._add("MatMul", [total.name, self._constant("head", head["kernel"])], ["product"])
        self._add("Add", ["product", self._constant("head_bias", head["bias"])], ["logits"])

    @property
    def _is_normalized(self) -> bool:
        return isinstance(self._model.network.cell, LayerNormLstm)

    def _add_plain(self, index: int, inputs: str | None, h: str, c: str) -> list[str]:
        """Adds an LSTM operator; returns the names of its outputs [T, B, H] and of h and c after.

        Args:
          index: of the layer.
          inputs: [T, B, F]; None for the symbols.
          h, c: the state before, [1, B, H].
        """
        layer = self._params["layers"][str(index)]
        bias = np.concatenate([_iofc(layer["bias"]), np.zeros_like(layer["bias"])])
        weights = [
            self._constant(f"weight_ih_{index}", _iofc(layer["weight_ih"]).T[None]),
            self._constant(f"weight_hh_{index}", _iofc(layer["weight_hh"]).T[None]),
            self._constant(f"bias_{index}", bias[None]),
        ]
        x = inputs or self._looked_up()
        found = [f"{name}_{index}" for name in ("y4", "h1", "c1")]
        sizes = {"hidden_size": layer["weight_hh"].shape[0]}
        self._add("LSTM", [x, *weights, "", h, c], found, **sizes)
        if index == 0:
            self._constant("axis_1", np.array([1]))
        self._add("Squeeze", [found[0], "axis_1"], [f"y_{index}"])
        return [f"y_{index}", *found[1:]]

    def _looked_up(self) -> str:
        """Adds what the first layer reads of each symbol: its embedding, or a one-hot vector."""
        if "embedding" in self._params:
            table = self._constant("embedding", self._params["embedding"])
        else:
            # An identity that takes no room in the file; a symbol that is none is an error.
            size = np.full(2, self._model.alphabet.size)
            zeros = self._onnx.numpy_helper.from_array(np.zeros(1, np.float32))
            self._add("ConstantOfShape", [self._constant("size", size)], ["zeros"], value=zeros)
            self._add("EyeLike", ["zeros"], ["one_hot"], dtype=self._onnx.TensorProto.FLOAT)
            table = "one_hot"
        self._add("Gather", [table, "symbols"], ["x"], axis=0)
        return "x"

    def _add_normalized(self, index: int, inputs: str | None, h: str, c: str) -> list[str]:
        """Adds a Scan over time steps; see `_add_plain`."""
        layer = self._params["layers"][str(index)]
        named = {
            name: self._constant(f"{name}_{index}", array)
            for name, array in layer.items()
            if index or name not in ("weight_ih", "gain_ih", "bias")
        }
        share = self._share(index, layer, named, inputs)
        if index == 0:
            self._constant("axis_0", np.array([0]))
        before = [f"{name}_flat" for name in (h, c)]
        for state, flat in zip((h, c), before, strict=True):
            self._add("Squeeze", [state, "axis_0"], [flat])
        after = [f"{name}1_{index}_flat" for name in "hc"]
        body = self._time_step(named, layer["weight_hh"].shape[0])
        scanned = [*after, f"y_{index}"]
        self._add("Scan", [*before, share], scanned, body=body, num_scan_inputs=1)
        found = [f"{name}1_{index}" for name in "hc"]
        for flat, state in zip(after, found, strict=True):
            self._add("Unsqueeze", [flat, "axis_0"], [state])
        return [f"y_{index}", *found]

    def _share(self, index: int, layer: Layer, named: dict[str, str], inputs: str | None) -> str:
        """Adds the input's share of the pre-activations, [T, B, 4H]."""
        share = f"share_{index}"
        if inputs is None:  # of a symbol it is always the same
            rows = layer["weight_ih"]
            if "embedding" in self._params:
                rows = self._params["embedding"] @ rows
            table = np.asarray(self._model.network.cell.input_share(layer, rows, -1))
            self._add("Gather", [self._constant("table", table), "symbols"], [share], axis=0)
            return share
        product = f"product_{index}"
        self._add("MatMul", [inputs, named["weight_ih"]], [product])
        vectors = [named["gain_ih"], named["bias"]]
        self._nodes.append(self._normalization(product, vectors, share))
        return share

    def _time_step(self, named: dict[str, str], hidden: int) -> Any:
        """Returns the graph of a time step: h, c and the share in, h, c and the output out."""
        make, types = self._onnx.helper.make_tensor_value_info, self._onnx.TensorProto
        node = self._onnx.helper.make_node
        nodes = [
            node("MatMul", ["h", named["weight_hh"]], ["recurrent"]),
            self._normalization("recurrent", [named["gain_hh"]], "normalized"),
            node("Add", ["share", "normalized"], ["z"]),
            node("Split", ["z"], ["z_i", "z_f", "z_g", "z_o"], axis=-1),
            *(node("Sigmoid", [f"z_{gate}"], [gate]) for gate in "ifo"),
            node("Tanh", ["z_g"], ["g"]),
            node("Mul", ["f", "c"], ["kept"]),
            node("Mul", ["i", "g"], ["added"]),
            node("Add", ["kept", "added"], ["c_after"]),
            self._normalization("c_after", [named["gain_c"], named["bias_c"]], "cell"),
            node("Tanh", ["cell"], ["tanh_c"]),
            node("Mul", ["o", "tanh_c"], ["h_after"]),
            node("Identity", ["h_after"], ["y"]),
        ]
        state = ["B", hidden]
        inputs = [make(name, types.FLOAT, state) for name in "hc"]
        inputs.append(make("share", types.FLOAT, ["B", 4 * hidden]))
        outputs = [make(name, types.FLOAT, state) for name in ("h_after", "c_after", "y")]
        return self._onnx.helper.make_graph(nodes, "time_step", inputs, outputs)

    def _normalization(self, name: str, vectors: list[str], result: str) -> Any:
        return self._onnx.helper.make_node(
            "LayerNormalization", [name, *vectors], [result], axis=-1, epsilon=EPSILON
        )

    def _add(self, operator: str, inputs: Any, outputs: list[str], **attributes: Any) -> None:
        node = self._onnx.helper.make_node(operator, list(inputs), outputs, **attributes)
        self._nodes.append(node)

    def _constant(self, name: str, array: np.ndarray) -> str:
        tensor = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        self._constants.append(tensor)
        return name


class _Sum:
    """An array of the graph, which can be added to another."""

    def __init__(self, graph: _Graph, name: str):
        self._graph, self.name = graph, name

    def __add__(self, other: "_Sum") -> "_Sum":
        """Adds an addition to the graph."""
        name = f"{self.name}_plus_{other.name}"
        self._graph._add("Add", [self.name, other.name], [name])
        return _Sum(self._graph, name)


def _iofc(array: np.ndarray) -> np.ndarray:
    """Returns an array with gates i, f, g, o along its last axis in ONNX's order i, o, f, g."""
    i, f, g, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, o, f, g], axis=-1)
