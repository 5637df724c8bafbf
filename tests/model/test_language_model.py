"""A language model is one value: a pytree with its parameters, and how they are computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CUDA, network_of

from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.model.language_model import LanguageModel
from charlstm.model.parameters import init_params
from charlstm.model.recurrence import Columns, Cudnn, Scan, TensorParallel, Wavefront
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target

SYMBOLS = b"\n abcdefghi"
CPU = Target("cpu", "cpu")
CONFIG = Config().replace({"model.num_layers": 2, "model.hidden_size": 8, "model.dropout": 0.0})
INPUTS = np.random.default_rng(0).integers(0, len(SYMBOLS), (5, 3)).astype(np.uint8)


def make_model(config=CONFIG, seed=None):
    """Everything made anew, so that two models share no object."""
    alphabet = Alphabet("corpus", bytes(bytearray(SYMBOLS)))
    return LanguageModel.initialize(config, alphabet, CPU, seed)


@pytest.fixture
def model():
    return make_model()


def structure(model):
    """All that is not the parameters, as jit compares it."""
    return jax.tree.structure(model)


def test_the_leaves_are_the_parameters(model):
    assert jax.tree.leaves(model) == jax.tree.leaves(model.params)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model)
    assert isinstance(doubled, LanguageModel)
    assert (doubled.alphabet, doubled.network) == (model.alphabet, model.network)
    np.testing.assert_array_equal(
        doubled.params["head"]["kernel"], 2 * model.params["head"]["kernel"]
    )


def test_jit_takes_a_model_and_computes_what_its_network_does(model):
    @jax.jit
    def run(model):
        return model.apply(model.zero_carry(3), INPUTS)

    logits, carry = run(model)
    wanted, after = model.network.apply(model.params, model.zero_carry(3), INPUTS)
    assert logits.shape == (5, 3, len(SYMBOLS))
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry["c"], after["c"], rtol=1e-5, atol=1e-6)


def test_an_equal_model_compiles_nothing_and_another_one_does(model):
    traced = []

    @jax.jit
    def run(model):
        traced.append(model.network)
        return model.apply(model.zero_carry(3), INPUTS)[0]

    first = run(model)
    for equal in (
        make_model(),
        make_model(seed=7),  # other numbers, the same computation
        model.replace(params=jax.tree.map(jnp.copy, model.params)),
        model.in_dtype("float32"),
        model.in_dtype(jnp.float32),
        model.with_recurrence(Scan("gates")),
    ):
        assert structure(equal) == structure(model)
        assert hash(structure(equal)) == hash(structure(model))
        run(equal)
    assert len(traced) == 1
    for other in (
        model.in_dtype(jnp.bfloat16),
        model.with_recurrence(Scan("state")),
        model.replace(network=model.network.replace(connections="skip")),
        model.replace(reset_every=3),
    ):
        assert structure(other) != structure(model)
        run(other)
    assert len(traced) == 5
    np.testing.assert_array_equal(run(make_model()), first)


def test_replace_changes_what_it_names_and_leaves_the_model_as_it_is(model):
    found = model.replace(reset_every=5)
    assert (found.reset_every, model.reset_every) == (5, 0)
    assert found.params is model.params
    assert (found.alphabet, found.network) == (model.alphabet, model.network)


def test_in_dtype_changes_the_dtype_of_products_alone(model):
    low = model.in_dtype(jnp.bfloat16)
    assert low.network.compute.dtype == jnp.bfloat16
    assert model.network.compute.dtype == jnp.float32
    assert low.network.compute.target == model.network.compute.target
    assert low.network == network_of(dtype=jnp.bfloat16, target=CPU)
    assert low.params is model.params
    outputs, _ = low.network.outputs(low.params, low.zero_carry(3), INPUTS)
    assert outputs.dtype == jnp.bfloat16


def test_with_recurrence_changes_the_time_loop_alone(model):
    columns = model.with_recurrence(Columns())
    assert columns.network == network_of(Columns(), target=CPU)
    assert model.network.recurrence == Scan()
    assert columns.params is model.params
    found, _ = columns.apply(columns.zero_carry(3), INPUTS)
    wanted, _ = model.apply(model.zero_carry(3), INPUTS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_put_lays_out_the_parameters(model):
    sharding = meshes.replicated(meshes.single_device_mesh())
    found = model.put(sharding)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(found))
    assert structure(found) == structure(model)


def test_a_model_of_a_configuration_is_what_it_says():
    config = CONFIG.replace(
        {
            "model.num_layers": 3,
            "model.connections": "skip",
            "model.layer_norm": True,
            "model.residuals": "state",
            "data.carry_state": False,
            "data.window_length": 7,
        }
    )
    alphabet = Alphabet("corpus", SYMBOLS)
    params = init_params(jax.random.key(1), config.model, alphabet.size)
    make = functools.partial(LanguageModel.of, config, alphabet, params)
    model = make(CUDA)
    options = {"layer_norm": True, "connections": "skip"}
    assert model.network == network_of(Scan("state"), dtype=jnp.bfloat16, target=CUDA, **options)
    assert make(CPU).network == network_of(Scan("state"), target=CPU, **options)
    assert model.network.describe() == "scan, states kept, layer norm, skip connections"
    assert model.reset_every == 7
    assert (model.shape, model.params, model.alphabet) == ((3, 8), params, alphabet)
    assert model.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    split = LanguageModel.of(CONFIG, alphabet, params, CPU, model_devices=2)
    assert split.network.recurrence == TensorParallel() and split.reset_every == 0


def test_an_untrained_model_starts_from_the_seed():
    same, other = make_model(seed=CONFIG.training.seed), make_model(seed=1)
    kernel = make_model().params["head"]["kernel"]
    np.testing.assert_array_equal(kernel, same.params["head"]["kernel"])
    assert (kernel != other.params["head"]["kernel"]).any()


@pytest.mark.parametrize("recurrence", [Columns(), TensorParallel(), Wavefront(4), Cudnn()])
def test_a_time_loop_that_does_not_compute_the_cell_is_refused(recurrence):
    normalizing = make_model(CONFIG.replace({"model.layer_norm": True}))
    with pytest.raises(ValueError, match="computes the plain LSTM"):
        normalizing.with_recurrence(recurrence)
    assert normalizing.with_recurrence(Scan("state")).network.recurrence == Scan("state")


@pytest.mark.parametrize("recurrence", [Wavefront(4), Cudnn()])
def test_a_time_loop_of_several_layers_at_once_is_refused_with_connections(recurrence):
    connected = make_model(CONFIG.replace({"model.connections": "skip"}))
    with pytest.raises(ValueError, match="has no skip connections"):
        connected.with_recurrence(recurrence)
    assert connected.with_recurrence(Columns()).network.connections == "skip"
