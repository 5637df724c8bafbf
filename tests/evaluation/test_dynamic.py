"""Dynamic evaluation is the paper's rule, and a text is scored before it is learned from."""

import jax
import lstm_reference as reference
import numpy as np
import pytest
from models import model_of

from charlstm.errors import UserError
from charlstm.evaluation import dynamic
from charlstm.evaluation.dynamic import DynamicEvaluator, Rule

SYMBOLS = b"\nabcdefghij"
RULES = (
    Rule(kind="rms", segment=6, learning_rate=2e-3, decay=0.3, epsilon=0.5),
    Rule(kind="sgd", segment=6, learning_rate=0.05, decay=0.1),
)


def text(seed, length):
    rng = np.random.default_rng(seed)
    return np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), length)]


def zero_state(params):
    shape = (len(params["layers"]), 1, params["head"]["kernel"].shape[0])
    return {"h": np.zeros(shape), "c": np.zeros(shape)}


def segments(symbols, n):
    """Inputs and targets [n, 1] of each segment, the last one perhaps shorter."""
    for begin in range(0, len(symbols) - 1, n):
        piece = symbols[begin : begin + n + 1]
        yield piece[:-1, None], piece[1:, None]


def with_line_break(data, start, stop):
    read = np.concatenate([[np.uint8(10)], data])[start : stop + 1]
    return np.searchsorted(np.frombuffer(SYMBOLS, np.uint8), read).astype(np.uint8)


def rms_by_definition(params, data, n):
    squares, carry, count = jax.tree.map(np.zeros_like, params), zero_state(params), 0
    for inputs, targets in segments(with_line_break(data, 0, len(data)), n):
        _, gradient, carry = reference.loss_and_gradients(params, carry, inputs, targets)
        squares = jax.tree.map(lambda s, g: s + g**2, squares, gradient)
        count += 1
    return jax.tree.map(lambda s: np.sqrt(s / count), squares)


def score_by_definition(params, rule, data, start, stop, training, temperature=1.0):
    """Mean nats in float64, one segment and one formula at a time; all before `start` is read."""
    rms = rms_by_definition(params, training, rule.segment)
    sizes = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(rms)])
    mean = sizes[sizes > 0].mean()
    trained, carry = params, zero_state(params)
    if start:
        before = with_line_break(data, 0, start)[:-1, None]
        carry = reference.forward(params, carry, before)[1]
    total = 0.0
    for inputs, targets in segments(with_line_break(data, start, stop), rule.segment):
        head = {name: leaf / temperature for name, leaf in params["head"].items()}
        cooled = params | {"head": head}
        nats, _, _ = reference.loss_and_gradients(cooled, carry, inputs, targets)
        total += nats * len(targets)
        _, gradient, carry = reference.loss_and_gradients(params, carry, inputs, targets)
        if rule.kind == "rms":
            params = jax.tree.map(
                lambda p, g, r, p0: (
                    p
                    - rule.learning_rate * g / (r + rule.epsilon * mean)
                    + np.minimum(rule.decay * r / mean, 1) * (p0 - p)
                ),
                params,
                gradient,
                rms,
                trained,
            )
        else:
            params = jax.tree.map(
                lambda p, g, p0: p - rule.learning_rate * g + rule.decay * (p0 - p),
                params,
                gradient,
                trained,
            )
    return total / (stop - start)


@pytest.fixture(scope="module")
def params():
    return reference.random_case(0)[0]


@pytest.fixture(scope="module", params=RULES, ids=lambda rule: rule.kind)
def evaluator(request, params):
    return DynamicEvaluator(model_of(params, SYMBOLS), request.param, text(1, 90)), request.param


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 400), (33, 200)])
def test_the_score_is_that_of_the_rule_written_down(params, evaluator, start, stop, monkeypatch):
    monkeypatch.setattr(dynamic, "RMS_STRETCHES", 1)
    evaluate, rule = evaluator
    data, temperatures = text(2, 450), (1.0, 1.5)
    found = evaluate(data, start, stop, temperatures)
    for temperature, score in zip(temperatures, found, strict=True):
        wanted = score_by_definition(params, rule, data, start, stop, text(1, 90), temperature)
        assert score.num_bytes == stop - start
        np.testing.assert_allclose(score.nats, wanted, rtol=2e-5)
    # What was learned from one text is forgotten before the next.
    assert evaluate(data, start, stop, temperatures) == found


def test_learning_from_a_text_that_repeats_itself_helps(params, evaluator):
    evaluate, _ = evaluator
    frozen = Rule(kind="sgd", segment=6, learning_rate=0, decay=0)
    data = np.tile(text(3, 40), 20)
    static = DynamicEvaluator(model_of(params, SYMBOLS), frozen, None)
    assert evaluate(data, 0, 800)[0].nats < static(data, 0, 800)[0].nats - 0.02


def test_a_rate_that_blows_up_is_named(params):
    rule = Rule(kind="sgd", learning_rate=1e38)
    wild = DynamicEvaluator(model_of(params, SYMBOLS), rule, None)
    with pytest.raises(UserError, match="--dynamic_learning_rate=1e\\+38"):
        wild(text(4, 200), 0, 200)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"segment": 0}, "segment"), ({"decay": 1.5}, "decay"), ({"epsilon": 0.0}, "epsilon")],
)
def test_values_out_of_range_are_refused(wrong, named):
    with pytest.raises(UserError, match=f"--dynamic_{named}="):
        Rule(**wrong)
