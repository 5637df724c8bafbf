"""The parameters before the first update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.config import ModelConfig
from charlstm.model.parameters import INIT_GAIN, init_params, layers_of, num_parameters


def test_initial_parameters_have_the_shapes_and_the_forget_bias_asked_for():
    model = ModelConfig(num_layers=3, hidden_size=1024, forget_bias=1.0)
    params = init_params(jax.random.key(0), model, 84)
    # The size that the literature's 3 × LSTM(1024) over 84 symbols has with one bias a gate.
    assert num_parameters(params) == 21_413_972
    bias = params["layers"]["1"]["bias"]
    assert (bias[1024:2048] == 1).all() and (bias[:1024] == 0).all() and (bias[2048:] == 0).all()


def test_initial_weights_have_the_deviations_that_the_gain_says():
    model = ModelConfig(num_layers=2, hidden_size=64, forget_bias=1.0)
    params = init_params(jax.random.key(1), model, 256)
    lower, upper = params["layers"]["0"], params["layers"]["1"]
    np.testing.assert_allclose(jnp.std(lower["weight_ih"]), INIT_GAIN, rtol=0.02)
    np.testing.assert_allclose(jnp.std(upper["weight_ih"]), INIT_GAIN / 8, rtol=0.02)
    np.testing.assert_allclose(jnp.std(params["head"]["kernel"]), INIT_GAIN / 8, rtol=0.02)
    for gate in jnp.split(upper["weight_hh"], 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(64), atol=1e-5)


@pytest.mark.parametrize("embedding_size", [0, 24])
def test_symbols_drive_the_gates_as_much_through_an_embedding(embedding_size):
    model = ModelConfig(
        num_layers=1, hidden_size=64, forget_bias=1.0, embedding_size=embedding_size
    )
    params = init_params(jax.random.key(2), model, 256)
    table = layers_of(params)[0]["weight_ih"]
    assert table.shape == (256, 256)
    np.testing.assert_allclose(jnp.std(table), INIT_GAIN, rtol=0.05)


def test_a_normalizing_layer_starts_with_gains_of_one_and_biases_of_zero():
    model = ModelConfig(num_layers=2, hidden_size=8, layer_norm=True)
    for layer in init_params(jax.random.key(3), model, 16)["layers"].values():
        for name, size in (("gain_ih", 32), ("gain_hh", 32), ("gain_c", 8)):
            np.testing.assert_array_equal(layer[name], np.ones(size))
        np.testing.assert_array_equal(layer["bias_c"], np.zeros(8))
