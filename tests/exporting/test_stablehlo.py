"""A StableHLO file computes what charlstm computes, and needs nothing of charlstm to be called."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from exported_models import KINDS, make_model, random_inputs, with_fields
from jax import export

from charlstm.data.corpus import Alphabet
from charlstm.exporting import stablehlo


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_state_are_those_of_charlstm_for_any_length_and_batch(kind):
    model, _ = make_model(kind)
    program = export.deserialize(bytearray(stablehlo.model_bytes(model)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for number, (steps, batch) in enumerate([(1, 1), (9, 3), (20, 2)]):
        symbols, carry = random_inputs(model, steps, batch, seed=number)
        found = program.call(symbols, carry["h"], carry["c"])
        state = {name: jnp.asarray(value) for name, value in carry.items()}
        logits, after = model.apply(state, jnp.asarray(symbols))
        for array, wanted in zip(found, (logits, after["h"], after["c"]), strict=True):
            assert array.dtype == jnp.float32 and array.shape == wanted.shape
            np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-5)


def test_a_model_in_bfloat16_is_exported_in_float32():
    model, _ = make_model("plain")
    symbols, carry = random_inputs(model, 9, 3)
    program = export.deserialize(bytearray(stablehlo.model_bytes(model.in_dtype(jnp.bfloat16))))
    logits = program.call(symbols, carry["h"], carry["c"])[0]
    state = {name: jnp.asarray(value) for name, value in carry.items()}
    np.testing.assert_allclose(logits, model.apply(state, jnp.asarray(symbols))[0], atol=1e-5)


ALONE = """
import json, sys
import numpy as np
from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
told = json.load(open(sys.argv[1] + ".json"))
assert "charlstm" not in sys.modules
h, c = np.load(sys.argv[2])
symbols = np.array([[told["alphabet"]["symbols"].index(byte)] for byte in b"a bad bee"])
np.save(sys.argv[3], program.call(symbols.astype("int32"), h, c)[0])
"""


def test_it_is_called_without_charlstm(tmp_path, environment):
    model, metadata = make_model("layer norm")
    metadata = with_fields(metadata, {"data.carry_state": False, "data.window_length": 12})
    path = tmp_path / "model.stablehlo"
    lines = stablehlo.write(model, metadata, path, "float32")
    assert "model.stablehlo.json" in lines[0]
    told = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert told["config"] == metadata.config.to_json() and told["reset_every"] == 12
    assert Alphabet.from_json(told["alphabet"]) == model.alphabet
    _, carry = random_inputs(model, 9, 1)
    np.save(tmp_path / "carry.npy", np.stack([carry["h"], carry["c"]]))
    files = [str(path), str(tmp_path / "carry.npy"), str(tmp_path / "logits.npy")]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *files],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    symbols = model.alphabet.encode(b"a bad bee")[:, None]
    state = {name: jnp.asarray(value) for name, value in carry.items()}
    wanted = model.apply(state, jnp.asarray(symbols))[0]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), wanted, rtol=0, atol=1e-5)
