"""A score is the score of the whole text, state carried."""

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest
from models import model_of

from charlstm.errors import UserError
from charlstm.evaluation import evaluator, rows
from charlstm.evaluation.evaluator import Evaluator
from charlstm.runtime import meshes

SYMBOLS = b"\nabcdefghij"


def make_evaluator(params, data, start, stop, reset_every=0):
    """A mesh, a model on it, and the model's evaluator."""
    mesh = meshes.make_mesh(1)
    model = model_of(params, SYMBOLS, reset_every=reset_every).put(meshes.replicated(mesh))
    with jax.set_mesh(mesh):
        return mesh, model, Evaluator(model, data, start, stop, mesh)


def score(params, data, start, stop, **how):
    mesh, model, evaluate = make_evaluator(params, data, start, stop, **how)
    with jax.set_mesh(mesh):
        first, second = evaluate(model), evaluate(model)
    assert first == second
    return first


def zero_state(params):
    shape = (len(params["layers"]), 1, params["head"]["kernel"].shape[0])
    return {"h": np.zeros(shape), "c": np.zeros(shape)}


def by_definition(params, data, start, stop, reset_every=0):
    """One pass over everything up to `stop`, in float64, from a zero state after a line break.

    With `reset_every`, the state is made zero before each so many predictions from `start` on.
    """
    text = np.concatenate([[np.uint8(10)], data[:stop]])
    symbols = np.searchsorted(np.frombuffer(SYMBOLS, np.uint8), text).astype(np.uint8)
    begins = range(start, stop, reset_every) if reset_every else [0]
    ends = [*begins[1:], stop]
    logits = np.concatenate(
        [np.zeros((begins[0], 1, len(SYMBOLS)))]
        + [
            reference.forward(params, zero_state(params), symbols[begin:end, None])[0]
            for begin, end in zip(begins, ends, strict=True)
        ]
    )[:, 0]
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    nats = log_sum - logits[np.arange(len(logits)), symbols[1:]]
    hits = logits.argmax(1) == symbols[1:]
    return nats[start:stop].mean(), hits[start:stop].mean()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 100), (0, 1), (900, 1000), (0, 6000), (5000, 7001), (131, 4242)]
)
def test_score_is_that_of_one_pass_over_the_text(start, stop):
    params, _, _, _ = reference.random_case(0, num_layers=2)
    rng = np.random.default_rng(1)
    data = np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), 7001)]
    found = score(params, data, start, stop)
    nats, accuracy = by_definition(params, data, start, stop)
    assert found.num_bytes == stop - start
    # Rows warmed up on a few hundred bytes have forgotten that they did not begin at the start.
    np.testing.assert_allclose(found.nats, nats, rtol=1e-4)
    np.testing.assert_allclose(found.accuracy, accuracy, atol=2.5 / (stop - start))
    np.testing.assert_allclose(found.bits_per_byte, nats / np.log(2), rtol=1e-4)


@pytest.mark.parametrize("reset_every", [1, 2, 7, 300])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (131, 1242)])
def test_a_model_without_carried_state_is_scored_as_it_was_trained(start, stop, reset_every):
    params, _, _, _ = reference.random_case(2, num_layers=2)
    rng = np.random.default_rng(3)
    data = np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), 1300)]
    found = score(params, data, start, stop, reset_every=reset_every)
    nats, accuracy = by_definition(params, data, start, stop, reset_every)
    np.testing.assert_allclose(found.nats, nats, rtol=1e-6)
    np.testing.assert_allclose(found.accuracy, accuracy)


def test_a_window_of_one_byte_is_scored_thousands_at_a_time():
    whole = rows.Rows.fresh(5, 1_000_005, 4, 1)
    assert whole.count == 8192 and whole.num_windows == 123


@pytest.mark.parametrize("reset_every", [0, 3])
def test_several_temperatures_are_each_those_of_divided_logits(reset_every):
    params, _, _, _ = reference.random_case(4)
    rng = np.random.default_rng(5)
    data = np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), 900)]
    temperatures = (0.5, 1.0, 1.7)
    mesh, model, evaluate = make_evaluator(params, data, 50, 900, reset_every=reset_every)
    with jax.set_mesh(mesh):
        found = evaluate.at_temperatures(model, temperatures)
    for temperature, one in zip(temperatures, found, strict=True):
        head = {name: leaf / temperature for name, leaf in params["head"].items()}
        cooled = params | {"head": head}
        nats, accuracy = by_definition(cooled, data, 50, 900, reset_every)
        np.testing.assert_allclose(one.nats, nats, rtol=1e-4)
        np.testing.assert_allclose(one.accuracy, accuracy, atol=2.5 / 850)


def test_every_byte_counts_once(monkeypatch):
    """With uniform predictions each byte costs ln V exactly, whatever the rows."""
    monkeypatch.setattr(rows, "MAX_ROWS", 7)
    params, _, _, _ = reference.random_case(0)
    params["head"] = jax.tree.map(np.zeros_like, params["head"])
    data = np.frombuffer(SYMBOLS * 500, np.uint8)
    for stop in (1, 255, 256, 2048, 2049, 5500):
        found = score(params, data, 0, stop)
        np.testing.assert_allclose(found.nats, np.log(len(SYMBOLS)), rtol=1e-6)


def test_an_evaluation_stops_before_the_chunk_that_it_is_told_to(monkeypatch):
    monkeypatch.setattr(rows, "MAX_ROWS", 1)
    params, _, _, _ = reference.random_case(6)
    rng = np.random.default_rng(7)
    three_chunks = 3 * evaluator.CHUNK * rows.WINDOW_LENGTH
    data = np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), three_chunks)]
    mesh, model, evaluate = make_evaluator(params, data, 0, len(data))
    answers = []

    def should_stop():
        return answers.pop(0)

    with jax.set_mesh(mesh):
        whole = evaluate(model)
        answers[:] = [False, True, False]
        assert evaluate.interruptible(model, should_stop) is None and answers == [False]
        answers[:] = [False, False, False]
        assert evaluate.interruptible(model, should_stop) == whole and answers == []


def test_one_evaluator_scores_several_models():
    params, _, _, _ = reference.random_case(0)
    data = np.frombuffer(SYMBOLS * 50, np.uint8)
    mesh, model, evaluate = make_evaluator(params, data, 0, 500)
    with jax.set_mesh(mesh):
        first = evaluate(model)
        uniform = model.replace(params=jax.tree.map(jnp.zeros_like, model.params))
        np.testing.assert_allclose(evaluate(uniform).nats, np.log(len(SYMBOLS)), rtol=1e-6)
        assert evaluate(model) == first
    np.testing.assert_allclose(first.nats, by_definition(params, data, 0, 500)[0], rtol=1e-4)


def test_a_byte_outside_the_alphabet_is_refused():
    params, _, _, _ = reference.random_case(0)
    with pytest.raises(UserError, match="0x7a at offset 2"):
        make_evaluator(params, np.frombuffer(b"abz", np.uint8), 0, 3)
