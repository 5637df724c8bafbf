"""Filters keep the symbols that their definitions keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.sampling.decode import Settings, draw
from charlstm.sampling.filters import filter_logits

PROBABILITIES = np.array([[0.4, 0.05, 0.3, 0.05, 0.2], [0.05, 0.9, 0.02, 0.02, 0.01]])


def kept(top_k=0, top_p=1.0):
    filtered = filter_logits(jnp.log(PROBABILITIES), top_k, top_p)
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in np.asarray(filtered)]


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


def test_a_symbol_that_was_ruled_out_is_never_drawn():
    """Not even by the numbers at the ends of [0, 1), where sums are rounded."""
    chances = jnp.concatenate([jnp.linspace(0, 1, 4097)[:-1], jnp.array([1 - 2**-23])])
    logits = jnp.log(jnp.array([0.0, 0.3, 0.0, 0.7, 0.0]))[:, None]
    drawn = draw(jnp.broadcast_to(logits, (5, 4097)), chances, Settings())
    assert set(np.asarray(drawn).tolist()) == {1, 3}
