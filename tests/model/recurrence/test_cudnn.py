"""The way into and out of cuDNN's LSTM, held against its JAX reference; and who is refused."""

import os
import subprocess
import sys
from pathlib import Path

import lstm_reference as reference
import numpy as np
import pytest
import recurrence_checks as checks
from jax.experimental import rnn
from models import CUDA, float32
from processes import CHEAP

from charlstm.config import Config
from charlstm.errors import UserError
from charlstm.model.recurrence import Cudnn, cudnn

TESTS = Path(__file__).parents[2]


def lstm_without_gpu(x, h, c, weights, lengths, *sizes_and_options):
    """`rnn.lstm` as the library's own reference computes it, from the same packed weights."""
    input_size, hidden_size, num_layers, _, bidirectional = sizes_and_options
    unpacked = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, *sizes_and_options)


def pretend_cudnn(setattr=setattr):
    setattr(rnn, "lstm", lstm_without_gpu)


@pytest.fixture
def pretended(monkeypatch):
    pretend_cudnn(monkeypatch.setattr)


@pytest.mark.parametrize("num_layers", [2, 3])
def test_weights_states_and_gradients_reach_cudnn_as_documented(pretended, num_layers):
    case = reference.random_case(1, num_layers=num_layers)
    checks.assert_agrees_with_float64(Cudnn(), case, target=CUDA)
    checks.assert_agrees_with_scan(Cudnn(), case, target=CUDA)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_first_layer_that_reads_floats_is_left_to_cudnn_as_well(pretended, num_layers):
    checks.assert_reads_floats(Cudnn(), num_layers, with_masks=False, target=CUDA)


def test_packed_weights_are_as_many_and_as_laid_out_as_the_library_says():
    params, *_ = reference.random_case(2, num_layers=3)
    upper = [float32(params["layers"][index]) for index in ("1", "2")]
    packed = cudnn.pack(upper)
    assert packed.shape == (rnn.get_num_params_in_lstm(12, 12, 2, False),)
    weight_ih, weight_hh, bias_ih, bias_hh = rnn.unpack_lstm_weights(packed, 12, 12, 2, False)
    for index, layer in enumerate(upper):
        np.testing.assert_array_equal(weight_ih[index], layer["weight_ih"].T)
        np.testing.assert_array_equal(weight_hh[index], layer["weight_hh"].T)
        np.testing.assert_array_equal(bias_ih[index] + bias_hh[index], layer["bias"])


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"compute_dtype": "bfloat16"}, "set model.compute_dtype=float32"),
        ({"compute_dtype": "auto"}, "set model.compute_dtype=float32"),
        ({"dropout": 0.5}, "set model.dropout=0"),
        ({"num_layers": 1}, "model.num_layers=1 has none: set model.recurrence=scan"),
    ],
)
def test_what_cudnn_cannot_do_is_refused_with_the_cure(fields, cure):
    possible = {"model.recurrence": "cudnn", "model.compute_dtype": "float32"}
    possible |= {"model.num_layers": 2, "model.dropout": 0.0}
    assert Config().replace(possible).model.recurrence == "cudnn"
    with pytest.raises(UserError) as caught:
        Config().replace(possible | {f"model.{name}": value for name, value in fields.items()})
    assert cure in str(caught.value)


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from charlstm.model.recurrence import Cudnn
from model.recurrence import test_cudnn
test_cudnn.pretend_cudnn()
checks.assert_agrees_when_split(Cudnn(), steps=None, target=test_cudnn.CUDA)
"""
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
