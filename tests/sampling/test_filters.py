"""Filters keep the symbols that their definitions keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.errors import UserError
from charlstm.sampling import texts
from charlstm.sampling.filters import filter_logits
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws

PROBABILITIES = np.array([[0.4, 0.05, 0.3, 0.05, 0.2], [0.05, 0.9, 0.02, 0.02, 0.01]])


def kept(top_k=0, top_p=1.0):
    draws = Draws.alike(2, Settings(top_k=top_k, top_p=top_p), seed=0)
    logits = jnp.log(PROBABILITIES).T
    filtered = filter_logits(logits, draws.top_k, draws.top_p, draws.temperature)
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(filtered).T]


@functools.partial(jax.jit, static_argnames="settings")
def draw(logits, chances, settings):
    """What is drawn, in the program that filters; without filters in the other one as well."""
    draws = Draws.alike(logits.shape[1], settings, seed=0)
    drawn = texts.draw(logits, chances, draws, filters=True)
    if settings.filters:
        return drawn
    plain = texts.draw(logits, chances, draws, filters=False)
    return jnp.where(plain == drawn, drawn, 255)


def test_no_filter_keeps_everything():
    assert kept() == [[0, 1, 2, 3, 4]] * 2


def test_top_k_keeps_the_k_likeliest():
    assert kept(top_k=2) == [[0, 2], [0, 1]]


@pytest.mark.parametrize(
    ("top_p", "wanted"),
    [(0.39, [[0], [1]]), (0.6, [[0, 2], [1]]), (0.92, [[0, 1, 2, 3, 4], [0, 1]])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, wanted):
    assert kept(top_p=top_p) == wanted


def test_temperature_zero_takes_the_likeliest():
    drawn = draw(jnp.log(PROBABILITIES).T, jnp.array([0.9, 0.1]), Settings(temperature=0))
    assert drawn.tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
    logits = jnp.broadcast_to(jnp.log(PROBABILITIES[0])[:, None], (5, 40_000))
    chances = jax.random.uniform(jax.random.key(1), 40_000)
    drawn = draw(logits, chances, Settings(temperature=temperature))
    wanted = PROBABILITIES[0] ** (1 / temperature)
    found = np.bincount(np.asarray(drawn), minlength=5) / 40_000
    # Five standard deviations of a binomial share.
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=5 * 0.5 / np.sqrt(40_000))


# The smallest float32 and float64 are among them.
TINY = (1e-3, 1e-10, 1e-30, 1.5e-45, 5e-324)
HUGE = (1e10, 1e38, 1.7e308)
FILTERS = ({}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 4, "top_p": 0.9})


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("temperature", TINY)
def test_tiny_temperatures_take_the_likeliest(temperature, filters):
    rng = np.random.default_rng(2)
    logits = jnp.asarray(rng.normal(0, 5, (7, 500)) + 40, jnp.float32)
    drawn = draw(
        logits, jnp.asarray(rng.random(500), jnp.float32), Settings(temperature, **filters)
    )
    # At 1e-3 two symbols may be alike.
    best = jnp.sort(logits, axis=0)
    clear = (best[-1] - best[-2]) > 0.1
    np.testing.assert_array_equal(drawn[clear], jnp.argmax(logits, axis=0)[clear])


@pytest.mark.parametrize("temperature", [1e-36, 1e-10, 1e-3, 0.09, 1e3, 1e30])
def test_draws_follow_the_distribution_at_any_temperature(temperature):
    """Logits as small or large as the temperature have the distribution that they have at 1."""
    row = np.float32(np.log(PROBABILITIES[0]) * temperature)
    logits = jnp.broadcast_to(jnp.asarray(row)[:, None], (5, 40_000))
    chances = jax.random.uniform(jax.random.key(1), 40_000)
    drawn = draw(logits, chances, Settings(temperature=temperature))
    found = np.bincount(np.asarray(drawn), minlength=5) / 40_000
    np.testing.assert_allclose(found, PROBABILITIES[0], atol=5 * 0.5 / np.sqrt(40_000))


@pytest.mark.parametrize("temperature", HUGE)
def test_filters_keep_the_likeliest_at_huge_temperatures(temperature):
    """Where all are alike but for the order that they had, which the quotients have lost."""
    logits = jnp.broadcast_to(jnp.log(PROBABILITIES[1])[:, None], (5, 400))
    chances = jnp.linspace(0, 1, 401)[:-1]
    for filters, wanted in (
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.3}, {0, 1}),
    ):
        drawn = draw(logits, chances, Settings(temperature, **filters))
        assert set(np.asarray(drawn).tolist()) == wanted


def test_a_symbol_that_was_ruled_out_is_never_drawn():
    """Not even by the numbers at the ends of [0, 1), where sums are rounded."""
    chances = jnp.concatenate([jnp.linspace(0, 1, 4097)[:-1], jnp.array([1 - 2**-23])])
    logits = jnp.log(jnp.array([0.0, 0.3, 0.0, 0.7, 0.0]))[:, None]
    drawn = draw(jnp.broadcast_to(logits, (5, 4097)), chances, Settings())
    assert set(np.asarray(drawn).tolist()) == {1, 3}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"temperature": float("nan")}, "temperature=nan must be a finite number of 0 or more"),
        ({"temperature": float("inf")}, "temperature=inf must be a finite number"),
        ({"temperature": "1"}, "temperature='1' must be a finite number"),
        ({"temperature": True}, "temperature=True must be a finite number"),
        ({"top_k": 2.0}, "top_k=2.0 must be a whole number of 0 or more"),
        ({"top_k": -1}, "top_k=-1 must be a whole number"),
        ({"top_p": float("nan")}, "top_p=nan must be a number above 0 and at most 1"),
        ({"top_p": None}, "top_p=None must be a number"),
    ],
)
def test_settings_of_the_wrong_type_or_out_of_range_are_refused(setting, says):
    with pytest.raises(UserError, match=says):
        Settings(**setting)


def test_settings_may_be_numbers_of_numpy():
    given = Settings(np.float32(0.5), np.int64(3), np.float64(0.9))
    logits, chances = jnp.log(PROBABILITIES).T, jnp.array([0.5, 0.99])
    wanted = draw(logits, chances, Settings(0.5, 3, 0.9))
    assert draw(logits, chances, given).tolist() == wanted.tolist()
