"""The update and the dispatch around it."""

import dataclasses

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.runtime import meshes
from charlstm.training.program import Program

TEXT = np.random.default_rng(0).integers(0, 256, 4096).astype(np.uint8)
STREAMS = Streams(len(TEXT), num_streams=4, window_length=8)
OPTIMIZER = OptimizerConfig(warmup_updates=3, weight_decay=0.1)


def make(dropout=0.0, optimizer=OPTIMIZER, carry_state=True):
    """Returns a program and the state that it starts from; streams are split over the mesh."""
    config = Config(
        model=ModelConfig(
            num_layers=2,
            hidden_size=12,
            dropout=dropout,
            recurrence="scan",
            compute_dtype="float32",
        ),
        data=DataConfig(num_streams=4, window_length=8, carry_state=carry_state),
        optimizer=optimizer,
        training=TrainingConfig(num_updates=100),
    )
    program = Program(config, Alphabet.of("bytes", TEXT), meshes.make_mesh(4))
    return program, program.initialize(5)


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_equal(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("carry_state", [True, False])
def test_an_update_is_the_gradient_step_of_the_reference(carry_state):
    sgd = OptimizerConfig(
        name="sgd", momentum=0.0, clip_norm=0, schedule="constant", warmup_updates=0
    )
    program, state = make(optimizer=sgd, carry_state=carry_state)
    _, carry, _, _ = reference.random_case(1)  # what the window before has left
    state = dataclasses.replace(state, carry=jax.tree.map(jnp.float32, carry))
    window = STREAMS.window(TEXT, 3)
    params = jax.tree.map(np.float64, state.params)
    if not carry_state:
        carry = jax.tree.map(np.zeros_like, carry)
    loss, gradients, carry = reference.loss_and_gradients(params, carry, window[:-1], window[1:])
    after, metrics = jax.jit(program.update())(state, window)
    np.testing.assert_allclose(metrics.nats, loss, rtol=1e-5)
    np.testing.assert_allclose(after.carry["h"], carry["h"], rtol=1e-4, atol=1e-6)
    wanted = jax.tree.map(lambda p, g: p - sgd.learning_rate * g, params, gradients)
    jax.tree.map(
        lambda found, w: np.testing.assert_allclose(found, w, rtol=1e-5, atol=1e-7),
        after.params,
        wanted,
    )
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-5)


@pytest.fixture(scope="module")
def dropping():
    """A program with dropout, and its update alone."""
    program, _ = make(dropout=0.3)
    return program, jax.jit(program.update())


@pytest.fixture(scope="module")
def dispatches(dropping):
    """The program's dispatches: of a text on the device, and of one from the host."""
    program, _ = dropping
    with jax.set_mesh(meshes.make_mesh(4)):
        state = program.initialize(5)
        return {
            resident: program.compile(STREAMS, TEXT, state, resident) for resident in (True, False)
        }


@pytest.mark.parametrize("resident", [True, False], ids=["on device", "from host"])
def test_parameters_do_not_depend_on_how_a_run_is_cut_into_dispatches(
    resident, dropping, dispatches
):
    """Bit for bit, with one compilation for all lengths and no transfer but the explicit ones."""
    results = []
    with jax.set_mesh(meshes.make_mesh(4)):
        for counts in ((11,), (1,) * 11, (2, 8, 1)):
            state = dropping[0].initialize(5)
            step, losses = 0, []
            with jax.transfer_guard("disallow"):
                for count in counts:
                    state, metrics = dispatches[resident](state, step, count)
                    step += count
                    losses.append(jax.device_get(metrics).nats[:count])
            results.append((state, np.concatenate(losses)))
    for state, losses in results[1:]:
        assert_equal(state, results[0][0])
        assert (losses == results[0][1]).all()
    assert int(results[0][0].step) == 11


def test_text_from_host_and_on_device_train_alike(dropping, dispatches):
    with jax.set_mesh(meshes.make_mesh(4)):
        states = [
            dispatches[resident](dropping[0].initialize(5), 700, 5)[0] for resident in (True, False)
        ]
    for a, b in zip(leaves(states[0]), leaves(states[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_dropout_masks_differ_from_update_to_update(dropping):
    program, update = dropping
    state, window = program.initialize(5), STREAMS.window(TEXT, 0)
    one = update(state, window)[1].nats
    assert update(state, window)[1].nats == one
    later = dataclasses.replace(state, step=jnp.int32(1))
    assert update(later, window)[1].nats != one


def test_an_update_that_is_not_finite_changes_nothing_but_the_step(dropping):
    program, update = dropping
    state = program.initialize(5)
    broken = jax.tree.map(lambda leaf: leaf, state)
    broken.params["head"]["bias"] = state.params["head"]["bias"].at[0].set(jnp.nan)
    after, metrics = update(broken, STREAMS.window(TEXT, 0))
    assert metrics.skipped == 1 and after.step == 1
    for a, b in zip(leaves(after)[1:], leaves(broken)[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    _, metrics = update(state, STREAMS.window(TEXT, 0))
    assert metrics.skipped == 0
