"""Models of PyTorch among the tensors of a file: recognized, or refused with what was found."""

import json

import jax
import lstm_reference
import numpy as np
import pytest
import safetensors.numpy
from models import float32

from charlstm import UserError, importing
from charlstm.model.language_model import LanguageModel
from charlstm.runtime.targets import Target

V, H, E = 11, 6, 4
SYMBOLS = sorted(b"\n abcdefghi")
HEADER = {"alphabet": json.dumps({"kind": "corpus", "symbols": SYMBOLS})}


def tensors_of(prefix="lstm.", inputs=V, hidden=H, layers=2, head="head.", bias=True, **more):
    """Tensors as nn.LSTM and nn.Linear have them; `more` are added, and those of None left out."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    found = {}
    for index in range(layers):
        found[f"{prefix}weight_ih_l{index}"] = normal(4 * hidden, hidden if index else inputs)
        found[f"{prefix}weight_hh_l{index}"] = normal(4 * hidden, hidden)
        if bias:
            found[f"{prefix}bias_ih_l{index}"] = normal(4 * hidden)
            found[f"{prefix}bias_hh_l{index}"] = normal(4 * hidden)
    found |= {f"{head}weight": normal(V, hidden), f"{head}bias": normal(V)}
    found |= {name.replace("__", "."): array for name, array in more.items()}
    return {name: array for name, array in found.items() if array is not None}


@pytest.fixture
def read(tmp_path):
    def imported(tensors, header=HEADER, **options):
        path = tmp_path / "model.safetensors"
        safetensors.numpy.save_file(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, header
        )
        return importing.read(str(path), **options)

    return imported


def reference_logits(tensors, prefix, inputs):
    """Logits [T, B, V] by nn.LSTM's equations, written in NumPy, float64."""
    layers = {}
    for index in range(2):
        of = {k: np.float64(tensors.get(f"{prefix}{k}_l{index}", 0)) for k in
              ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
        bias = np.broadcast_to(of["bias_ih"] + of["bias_hh"], 4 * H)
        layers[str(index)] = {
            "weight_ih": of["weight_ih"].T, "weight_hh": of["weight_hh"].T, "bias": bias
        }  # fmt: skip
    head = {"kernel": np.float64(tensors["head.weight"]).T, "bias": tensors.get("head.bias", 0)}
    if "emb.weight" in tensors:
        layers["0"]["weight_ih"] = np.float64(tensors["emb.weight"]) @ layers["0"]["weight_ih"]
    carry = {name: np.zeros((2, inputs.shape[1], H)) for name in "hc"}
    return lstm_reference.forward({"layers": layers, "head": head}, carry, inputs)[0]


@pytest.mark.parametrize(
    ("prefix", "options"),
    [
        ("lstm.", {}),
        ("", {}),
        ("_orig_mod.model.rnn.", {}),
        ("lstm.", {"bias": False}),
        ("lstm.", {"head__bias": None}),
        ("lstm.", {"inputs": E, "emb__weight": np.ones((V, E), np.float32)}),
        ("lstm.", {"inputs": H, "emb__weight": np.eye(V, H, dtype=np.float32)}),
    ],
)
def test_whatever_its_names_its_logits_are_those_of_the_equations(read, prefix, options):
    tensors = tensors_of(prefix, **options)
    found = read(tensors)
    assert found.alphabet.symbols == bytes(SYMBOLS) and found.config.model.alphabet == "corpus"
    config = found.config.replace({"model.compute_dtype": "float32"})
    target = Target.of_this_machine()
    model = LanguageModel.of(config, found.alphabet, float32(found.params), target)
    inputs = np.random.default_rng(1).integers(0, V, (9, 3)).astype(np.uint8)
    logits, _ = model.apply(model.zero_carry(3), inputs)
    np.testing.assert_allclose(logits, reference_logits(tensors, prefix, inputs), atol=1e-5)
    assert found.corpus["sha256"] == "" and found.config.data.corpus == ""


def test_a_head_and_an_embedding_of_one_shape_are_told_apart(read):
    """By the bias beside the head, or by their names."""
    one, two = (np.full((V, H), value, np.float32) for value in (1, 2))
    plain = tensors_of(inputs=H, head__weight=None, head__bias=None)
    for names, bias in (
        (("a.weight", "b.weight"), "b.bias"),
        (("emb.weight", "b.weight"), None),
        (("a.weight", "to_logits.weight"), None),
        (("encoder.weight", "decoder.weight"), "decoder.bias"),
    ):
        extra = dict(zip(names, (one, two), strict=True))
        extra |= {bias: np.zeros(V, np.float32)} if bias else {}
        for tensors in (plain | extra, extra | plain):
            params = read(tensors).params
            assert (params["embedding"] == 1).all() and (params["head"]["kernel"] == 2).all()
    with pytest.raises(UserError, match="name the embedding with emb, or the head with head"):
        read(plain | {"a.weight": one, "b.weight": two})


def test_a_head_and_an_embedding_may_share_their_weights(read):
    tensors = tensors_of(inputs=H)
    found = read(tensors)
    assert (found.params["embedding"] == tensors["head.weight"]).all()
    assert found.config.model.embedding_size == H


def test_any_float_dtype_is_read(read):
    import ml_dtypes

    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        tensors = {name: array.astype(dtype) for name, array in tensors_of().items()}
        params = read(tensors).params
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
        assert (tensors["head.weight"].astype(np.float32) == params["head"]["kernel"].T).all()


NORM = {f"norm__{name}": np.ones(H, np.float32) for name in ("weight", "bias", "running_mean")}
ZEROS = {"weight_ih": (4 * H, H), "weight_hh": (4 * H, H), "bias_ih": (4 * H,)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (tensors_of(lstm__weight_ih_l0_reverse=np.zeros((4 * H, V))), "bidirectional"),
        (tensors_of(lstm__weight_hr_l0=np.zeros((3, H))), "proj_size"),
        (tensors_of(**NORM), "more than a head and an embedding, 'head.bias', 'norm.bias'"),
        (tensors_of(other__weight_hh_l0=np.zeros((4 * H, H))), "2 recurrent modules, 'lstm.', 'o"),
        (tensors_of(lstm__weight_hh_l1=None), "lstm.weight_hh_l1 is missing"),
        (tensors_of(lstm__bias_hh_l0=None), "lstm.bias_hh_l0 is missing"),
        (tensors_of(lstm__weight_ih_l999999999=np.zeros(1)), "lstm.weight_hh_l2 is missing"),
        (tensors_of(lstm__weight_hh_l0=np.zeros((3 * H, H))), f"l0 is [{3 * H}, {H}], and of an L"),
        (tensors_of(lstm__weight_hh_l0=np.zeros(1)), "is [1], and of an LSTM"),
        (tensors_of(head__weight=None, head__bias=None), f"no tensor is a head [V, {H}]"),
        (tensors_of(head__bias=np.zeros(3)), "head.bias is no bias of the head head.weight"),
        (tensors_of(inputs=9), "no embedding [11, 9]"),
        (tensors_of(inputs=E, emb__weight=np.zeros((V, 5))), "emb.weight is no embedding [11, 4]"),
        (tensors_of(more__weight=np.zeros((V, H, 1))), "'more.weight'"),
        (tensors_of(step=np.int64(3)), "step is of int64"),
        (tensors_of(head__bias=np.full(V, np.nan)), "head.bias has values that are not finite"),
        ({"cell.weight_ih": np.zeros((4 * H, V))}, "no tensor is named weight_ih_l0"),
        ({}, "no tensor is named weight_ih_l0"),
    ],
)
def test_what_is_no_such_model_is_refused_with_what_was_found_and_what_is_needed(
    read, tensors, says
):
    with pytest.raises(UserError) as caught:
        read(tensors)
    message = str(caught.value)
    assert says in message and "\n" not in message
    assert "needed are weight_ih_l0 [4H, F]" in message
    name = next(iter(tensors), None)
    assert name is None or f"{name} {list(np.shape(tensors[name]))}" in message


class TestAlphabet:
    def test_256_symbols_are_all_bytes(self, read):
        rng = np.random.default_rng(0)
        head = {"head__weight": rng.normal(size=(256, H)), "head__bias": rng.normal(size=256)}
        found = read(tensors_of(inputs=256, **head), header=None)
        assert found.alphabet.kind == found.config.model.alphabet == "bytes"

    def test_a_text_gives_its_bytes_in_order(self, read, tmp_path):
        (tmp_path / "text").write_bytes(bytes(reversed(SYMBOLS)) * 3)
        found = read(tensors_of(), header=None, alphabet_of=str(tmp_path / "text"))
        assert found.alphabet.symbols == bytes(SYMBOLS)
        assert found.config.data.corpus == str(tmp_path / "text")

    def test_without_either_the_text_is_asked_for(self, read):
        with pytest.raises(UserError, match="--alphabet_of=TEXTFILE"):
            read(tensors_of(), header=None)

    def test_another_number_of_bytes_is_refused(self, read, tmp_path):
        (tmp_path / "text").write_bytes(b"abc")
        with pytest.raises(UserError, match=r"11 symbols, and .*text has 3 different bytes"):
            read(tensors_of(), alphabet_of=str(tmp_path / "text"))

    @pytest.mark.parametrize("text", ["[1, 2]", "{", '{"kind": "corpus", "symbols": [3, 2]}'])
    def test_a_header_of_another_form_is_refused(self, read, text):
        with pytest.raises(UserError, match="is not of the form"):
            read(tensors_of(), header={"alphabet": text})


def test_a_field_that_the_weights_decide_is_refused_and_another_taken(read):
    found = read(tensors_of(), fields={"data.num_streams": "7", "model.dropout": 0.5})
    assert found.config.data.num_streams == 7 and found.config.model.dropout == 0.5
    with pytest.raises(UserError, match=r"has model.hidden_size=6: leave --config\.model"):
        read(tensors_of(), fields={"model.hidden_size": 7})


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02}q\x00"])
def test_a_pickle_is_never_read(tmp_path, begin):
    (tmp_path / "model.pt").write_bytes(begin + bytes(100))
    with pytest.raises(UserError, match=r"may hold code that runs .* safetensors file"):
        importing.read(str(tmp_path / "model.pt"))
