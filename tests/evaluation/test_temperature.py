"""The best temperature is found on the validation split and nowhere else."""

import numpy as np
import pytest

from charlstm.errors import UserError
from charlstm.evaluation.evaluator import Evaluation
from charlstm.evaluation.temperature import GRID, best_on_grid, parse, tempered


def nats_at(temperature, logits, targets):
    scaled = logits / temperature
    log_sum = np.log(np.exp(scaled).sum(1))
    return float((log_sum - scaled[np.arange(len(targets)), targets]).mean())


@pytest.mark.parametrize("true", [0.6, 0.93, 1.0, 1.31, 1.8])
def test_the_temperature_that_made_a_text_is_found(true):
    """Symbols drawn at a temperature are predicted best at about that one, and exactly at its own
    minimum, found here by trying a thousand."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 8)) * 2
    chances = np.exp(logits / true)
    chances /= chances.sum(1, keepdims=True)
    targets = (chances.cumsum(1) > rng.random((4000, 1))).argmax(1)
    fine = np.linspace(0.5, 2, 1001)
    best = fine[np.argmin([nats_at(t, logits, targets) for t in fine])]
    found = best_on_grid([nats_at(t, logits, targets) for t in GRID])
    assert found == pytest.approx(best, rel=0.01)
    assert nats_at(found, logits, targets) - nats_at(best, logits, targets) < 1e-5


def test_beyond_the_grid_its_end_is_taken():
    assert best_on_grid([float(k) for k in range(len(GRID))]) == GRID[0]
    assert best_on_grid([-float(k) for k in range(len(GRID))]) == GRID[-1]


def test_it_is_chosen_on_valid_and_applied_to_the_text():
    asked = []

    def scorer(bounds, temperatures):
        asked.append((bounds, tuple(temperatures)))
        return [Evaluation(1, (np.log2(t) - 0.25) ** 2 + bounds[0], 0.5) for t in temperatures]

    found = tempered(scorer, (7, 8), (3, 4), None)
    assert found.temperature == pytest.approx(2**0.25, rel=1e-3)
    assert asked[0] == ((3, 4), GRID)
    assert [bounds for bounds, _ in asked] == [(3, 4), (3, 4), (7, 8)]
    assert found.plain.nats == pytest.approx(7.0625) and found.score.nats == pytest.approx(7)
    assert found.on_valid == pytest.approx(3 / np.log(2))


def test_what_is_no_temperature_is_refused():
    assert parse("fit") is None and parse("0.9") == 0.9
    for text in ("0", "-1", "nan", "inf", "warm"):
        with pytest.raises(UserError, match=f"--temperature={text}"):
            parse(text)
