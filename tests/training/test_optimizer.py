"""Optimizers and schedules against their formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from charlstm.config import OptimizerConfig
from charlstm.training.optimizer import make_optimizer, make_schedule

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "bias": np.float32([4.0, 5.0])}
GRADIENTS = {"kernel": np.float32([[0.1, 0.2], [-0.3, 0.4]]), "bias": np.float32([0.5, -0.6])}


def directions(config, updates=1):
    optimizer = make_optimizer(config)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for _ in range(updates):
        found, state = optimizer.update(jax.tree.map(jnp.asarray, GRADIENTS), state, params)
    return found


def test_adamw_is_adam_plus_decay_of_matrices_alone():
    config = OptimizerConfig(name="adamw", weight_decay=0.1, clip_norm=0, epsilon=1e-8)
    found = directions(config, updates=3)
    for name, gradient in GRADIENTS.items():
        # With a constant gradient the bias-corrected moments are g and g².
        wanted = gradient / (np.abs(gradient) + 1e-8)
        if name == "kernel":
            wanted = wanted + 0.1 * PARAMS[name]
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5)


def test_sgd_with_momentum_adds_up_gradients():
    config = OptimizerConfig(name="sgd", momentum=0.5, clip_norm=0)
    found = directions(config, updates=2)
    np.testing.assert_allclose(found["bias"], 1.5 * GRADIENTS["bias"], rtol=1e-6)


def test_rmsprop_divides_by_the_root_mean_square():
    config = OptimizerConfig(name="rmsprop", b2=0.95, clip_norm=0)
    gradient = GRADIENTS["bias"]
    wanted = gradient / np.sqrt(0.05 * gradient**2 + 1e-8)
    np.testing.assert_allclose(directions(config)["bias"], wanted, rtol=1e-4)


def test_clipping_scales_to_the_global_norm():
    config = OptimizerConfig(name="sgd", momentum=0.0, clip_norm=0.25)
    found = directions(config)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in found.values()))
    np.testing.assert_allclose(norm, 0.25, rtol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3])
def test_clipping_is_that_of_optax(size):
    config = OptimizerConfig(name="sgd", momentum=0.0, clip_norm=0.25)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(size * leaf), GRADIENTS)
    optimizer, clip = make_optimizer(config), optax.clip_by_global_norm(0.25)
    found, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    wanted, _ = clip.update(gradients, clip.init(gradients))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, wanted)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
def test_warmup_rises_linearly_to_the_peak(schedule):
    config = OptimizerConfig(learning_rate=1.0, warmup_updates=9, schedule=schedule)
    rates = [float(make_schedule(config, 100)(step)) for step in range(10)]
    np.testing.assert_allclose(rates, np.arange(1, 11) / 10, rtol=1e-6)


def test_schedules_end_where_they_should():
    def rate(step, **fields):
        config = OptimizerConfig(learning_rate=2.0, warmup_updates=10, **fields)
        return float(make_schedule(config, 110)(step))

    assert rate(110, schedule="constant") == 2.0
    np.testing.assert_allclose(rate(60, schedule="cosine", final_fraction=0.0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rate(110, schedule="cosine", final_fraction=0.1), 0.2, rtol=1e-5)
    np.testing.assert_allclose(rate(60, schedule="linear", final_fraction=0.5), 1.5, rtol=1e-5)
    steps = {"schedule": "step", "step_start": 20, "step_updates": 10, "step_factor": 0.5}
    found = [rate(10 + step, **steps) for step in (0, 29, 30, 40)]
    np.testing.assert_allclose(found, [2.0, 2.0, 1.0, 0.5], rtol=1e-6)
