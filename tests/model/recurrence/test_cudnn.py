"""The way into and out of cuDNN's LSTM, held against its JAX reference; and who is refused."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest
import recurrence_checks as checks
from jax.experimental import rnn

from charlstm.errors import UserError
from charlstm.model.recurrence import cudnn
from charlstm.model.recurrence.cudnn import cudnn_stack

TESTS = Path(__file__).parents[2]


def lstm_without_gpu(x, h, c, weights, lengths, *sizes_and_options):
    """`rnn.lstm` as the library's own reference computes it, from the same packed weights."""
    input_size, hidden_size, num_layers, _, bidirectional = sizes_and_options
    unpacked = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, *sizes_and_options)


def pretend_cudnn(setattr=setattr):
    setattr(cudnn, "_has_nvidia_gpu", lambda: True)
    setattr(rnn, "lstm", lstm_without_gpu)


@pytest.fixture
def pretended(monkeypatch):
    pretend_cudnn(monkeypatch.setattr)


@pytest.mark.parametrize("num_layers", [2, 3])
def test_weights_states_and_gradients_reach_cudnn_as_documented(pretended, num_layers):
    case = reference.random_case(1, num_layers=num_layers)
    checks.assert_agrees_with_float64(cudnn_stack, case)
    checks.assert_agrees_with_scan(cudnn_stack, case)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_first_layer_that_reads_floats_is_left_to_cudnn_as_well(pretended, num_layers):
    checks.assert_reads_floats(cudnn_stack, num_layers, with_masks=False)


def test_packed_weights_are_as_many_and_as_laid_out_as_the_library_says():
    params, *_ = reference.random_case(2, num_layers=3)
    upper = [checks.float32(params["layers"][index]) for index in ("1", "2")]
    packed = cudnn.pack(upper)
    assert packed.shape == (rnn.get_num_params_in_lstm(12, 12, 2, False),)
    weight_ih, weight_hh, bias_ih, bias_hh = rnn.unpack_lstm_weights(packed, 12, 12, 2, False)
    for index, layer in enumerate(upper):
        np.testing.assert_array_equal(weight_ih[index], layer["weight_ih"].T)
        np.testing.assert_array_equal(weight_hh[index], layer["weight_hh"].T)
        np.testing.assert_array_equal(bias_ih[index] + bias_hh[index], layer["bias"])


def refusal(num_layers=2, masks=None, compute_dtype=jnp.float32):
    params, carry, _, _ = checks.float32(reference.random_case(3, num_layers=num_layers))
    layers = [params["layers"][str(index)] for index in range(num_layers)]
    with pytest.raises(UserError) as caught:
        cudnn_stack(layers, jnp.ones((9, 4), jnp.uint8), carry, masks, compute_dtype)
    return str(caught.value)


def test_a_machine_without_nvidia_gpu_is_refused():
    assert "needs an NVIDIA GPU" in refusal() and "model.recurrence=scan" in refusal()


def test_what_cudnn_cannot_do_is_refused_with_the_cure(pretended):
    assert "set model.compute_dtype=float32" in refusal(compute_dtype=jnp.bfloat16)
    assert "set model.dropout=0" in refusal(masks=jnp.ones((1, 1, 4, 12)))
    assert "model.num_layers=1 has none: set model.recurrence=scan" in refusal(num_layers=1)


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from model.recurrence import test_cudnn
test_cudnn.pretend_cudnn()
checks.assert_agrees_when_split(test_cudnn.cudnn_stack, steps=None)
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
