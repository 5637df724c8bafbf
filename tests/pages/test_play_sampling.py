"""What the page with a model in it draws is what charlstm draws of the same logits and numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.pages.html import ASSETS
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws
from charlstm.sampling.texts import draw as draw_symbols


@pytest.fixture(scope="module")
def page(chromium):
    page = chromium.new_page()
    # In a scope of its own, as `html.render` has it, but with the names to be tested outside.
    script = (ASSETS / "play_sampling.js").read_text()
    names = "{drawSymbol, logprobOf, generator}"
    page.evaluate(f"(() => {{ 'use strict'; {script}; Object.assign(window, {names}); }})()")
    yield page
    page.close()


def drawn(page, logits, chances, temperature, top_p):
    return page.evaluate(
        """([logits, chances, temperature, topP]) => chances.map((chance, index) =>
             drawSymbol(Float32Array.from(logits[index]), chance, temperature, topP))""",
        [logits.tolist(), chances.tolist(), temperature, top_p],
    )


@pytest.mark.parametrize("top_p", [0.01, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0, 1e-30, 0.05, 0.8, 1e30])
def test_symbols_are_those_that_charlstm_draws(page, temperature, top_p):
    rng = np.random.default_rng(0)
    logits = (4 * rng.normal(size=(300, 60))).astype(np.float32)
    chances = rng.uniform(size=300).astype(np.float32)
    chances[:2] = 0, np.nextafter(np.float32(1), np.float32(0))
    draws = Draws.alike(300, Settings(temperature=temperature, top_p=top_p), seed=0)
    wanted = draw_symbols(jnp.asarray(logits.T), jnp.asarray(chances), draws)
    assert drawn(page, logits, chances, temperature, top_p) == wanted.tolist()


def test_symbols_come_as_often_as_they_are_likely(page):
    """With the numbers of the page's own generator."""
    probabilities = np.array([0.5, 0.25, 0.15, 0.1])
    logits = np.log(probabilities).astype(np.float32)
    counts = page.evaluate(
        """(logits) => { const random = generator(7); const counts = [0, 0, 0, 0];
             for (let i = 0; i < 20000; i++) counts[drawSymbol(logits, random(), 1, 1)]++;
             return counts; }""",
        logits.tolist(),
    )
    deviations = (np.array(counts) - 20_000 * probabilities) / np.sqrt(20_000 * probabilities)
    assert (deviations**2).sum() < 16.3  # of chi squared with 3 degrees, 1 in 1000


def test_a_seed_gives_its_numbers_and_neighbours_give_others(page):
    numbers = page.evaluate(
        """() => [0, 0, 1, 2 ** 32 - 1].map(seed => {
             const random = generator(seed); return Array.from({length: 2000}, random); })"""
    )
    first, again, *others = np.array(numbers)
    assert (first == again).all() and np.min(numbers) >= 0 and np.max(numbers) < 1
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.08  # 3.5 standard deviations
        assert abs(np.corrcoef(first[1:], other[:-1])[0, 1]) < 0.08


def test_the_logarithm_of_a_probability(page):
    rng = np.random.default_rng(1)
    logits = (30 * rng.normal(size=50)).astype(np.float32)
    exact = logits.astype(np.float64)
    wanted = exact - np.max(exact) - np.log(np.sum(np.exp(exact - np.max(exact))))
    found = page.evaluate("(logits) => logits.map((_, i) => logprobOf(logits, i))", logits.tolist())
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
