"""An ONNX file computes what charlstm computes; onnxruntime is what runs it."""

import json

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from exported_models import KINDS, make_model, random_inputs, with_fields

from charlstm import UserError
from charlstm.data.corpus import Alphabet
from charlstm.exporting.onnx import model_bytes


def run(content, symbols, carry):
    """Logits, h and c, by onnxruntime."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inputs = {"symbols": symbols.astype(np.int64), "h0": carry["h"], "c0": carry["c"]}
    return session.run(["logits", "h1", "c1"], inputs)


def assert_equal(content, model, symbols, carry, atol=1e-5):
    logits, h, c = run(content, symbols, carry)
    wanted, after = model.apply(
        {name: jnp.asarray(state) for name, state in carry.items()}, jnp.asarray(symbols)
    )
    assert logits.dtype == h.dtype == c.dtype == np.float32
    for found, value in ((logits, wanted), (h, after["h"]), (c, after["c"])):
        assert found.shape == value.shape
        np.testing.assert_allclose(found, value, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_state_are_those_of_charlstm_for_any_length_and_batch(kind):
    model, metadata = make_model(kind)
    content = model_bytes(model, metadata)
    for number, (steps, batch) in enumerate([(1, 1), (9, 3), (20, 2)]):
        assert_equal(content, model, *random_inputs(model, steps, batch, seed=number))


def test_a_wide_model_of_all_bytes():
    model, metadata = make_model("plain", symbols=bytes(range(256)), hidden_size=64)
    assert_equal(model_bytes(model, metadata), model, *random_inputs(model, 20, 2))


def test_the_state_after_a_text_is_the_state_before_what_follows():
    model, metadata = make_model("plain")
    content = model_bytes(model, metadata)
    symbols, carry = random_inputs(model, 20, 2)
    whole = run(content, symbols, carry)
    first, h, c = run(content, symbols[:7], carry)
    second, h, c = run(content, symbols[7:], {"h": h, "c": c})
    np.testing.assert_allclose(np.concatenate([first, second]), whole[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(h, whole[1], rtol=0, atol=1e-6)


def test_it_says_what_model_it_is():
    model, metadata = make_model("layer norm")
    metadata = with_fields(metadata, {"data.carry_state": False, "data.window_length": 12})
    proto = onnx.load_from_string(model_bytes(model, metadata))
    onnx.checker.check_model(proto, full_check=True)
    texts = {prop.key: prop.value for prop in proto.metadata_props}
    assert json.loads(texts["config"]) == metadata.config.to_json()
    assert Alphabet.from_json(json.loads(texts["alphabet"])) == model.alphabet
    assert texts["reset_every"] == "12"
    assert [value.name for value in proto.graph.input] == ["symbols", "h0", "c0"]
    assert [value.name for value in proto.graph.output] == ["logits", "h1", "c1"]


def test_the_same_model_gives_the_same_bytes():
    content = {model_bytes(*make_model("all")) for _ in range(2)}
    assert len(content) == 1


def test_a_file_is_not_much_larger_than_its_weights():
    model, metadata = make_model("one layer", symbols=bytes(range(256)), hidden_size=128)
    assert len(model_bytes(model, metadata)) < 4 * model.num_parameters + 10_000


def test_a_symbol_that_is_none_is_an_error():
    model, metadata = make_model("plain")
    symbols, carry = random_inputs(model, 3, 1)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        run(model_bytes(model, metadata), symbols + model.alphabet.size, carry)


def test_a_model_that_does_not_fit_into_a_file_is_refused(monkeypatch):
    model, metadata = make_model("plain")
    monkeypatch.setattr("charlstm.exporting.onnx._MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"holds 2 GiB, and the model has .* parameters"):
        model_bytes(model, metadata)
