"""Cells are scored by the AUC, on bytes that did not choose them."""

import itertools

import numpy as np
import pytest

from charlstm.inspection.properties import Property
from charlstm.inspection.scoring import NUM_BLOCKS, is_held_out, score


def prop(holds, among=None):
    return Property("p", "", holds, np.ones(len(holds), bool) if among is None else among)


def auc(values, holds):
    """The AUC by its definition: all pairs."""
    pairs = itertools.product(values[holds].astype(int), values[~holds].astype(int))
    return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    cells = rng.integers(-126, 127, (4, 640)).astype(np.int8)
    holds, among = rng.random(640) < 0.3, rng.random(640) < 0.7
    cells[1, holds] = np.minimum(cells[1, holds] + 60.0, 126).astype(np.int8)
    cells[2, holds] = -5
    return cells, holds, among


def test_scores_are_the_auc_of_each_half(case):
    cells, holds, among = case
    for mask in (None, among):
        found = score(cells, [prop(~holds), prop(holds, mask)])[1]
        asked = np.ones(640, bool) if mask is None else mask
        other = is_held_out(640)
        for cell in range(4):
            chosen = auc(cells[cell, asked & ~other], holds[asked & ~other])
            held_out = auc(cells[cell, asked & other], holds[asked & other])
            if not found.rises[cell]:
                chosen, held_out = 1 - chosen, 1 - held_out
            assert chosen >= 0.5
            assert found.chosen_by[cell] == pytest.approx(chosen, abs=1e-6)
            assert found.held_out[cell] == pytest.approx(held_out, abs=1e-6)


def test_a_cell_that_falls_is_as_good_as_one_that_rises():
    rng = np.random.default_rng(1)
    holds = rng.random(2000) < 0.5
    rising = np.where(holds, 50, -50).astype(np.int8)
    found = score(np.stack([-rising, rising]), [prop(holds)])[0]
    assert found.held_out.tolist() == [1, 1] and found.rises.tolist() == [False, True]
    assert found.best(1) == [0]


def test_the_best_of_many_random_cells_is_not_believed():
    rng = np.random.default_rng(2)
    cells = rng.integers(-126, 127, (2000, 400)).astype(np.int8)
    found = score(cells, [prop(rng.random(400) < 0.5)])[0]
    best = found.best(10)
    assert found.chosen_by[best].min() > 0.6
    assert abs(found.held_out[best].mean() - 0.5) < 0.06


def test_what_is_too_rare_is_not_scored():
    holds = np.zeros(4000, bool)
    holds[:100] = True  # all of them in the first block, so in one half
    found = score(np.zeros((3, 4000), np.int8), [prop(holds), prop(np.zeros(4000, bool))])
    assert [scores.is_scored for scores in found] == [False, False]
    assert found[0].best(3) == [] and np.isnan(found[0].held_out).all()


def test_halves_are_alternating_blocks():
    half = is_held_out(NUM_BLOCKS * 10)
    assert not half[:10].any() and half[10:20].all() and half.mean() == 0.5
