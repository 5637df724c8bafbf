"""A score is the score of the whole text, state carried."""

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest

from charlstm import distributed
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.training import evaluation
from charlstm.training.evaluation import Evaluator

SYMBOLS = b"\nabcdefghij"
ALPHABET = Alphabet("corpus", SYMBOLS)


def make_evaluator(data, start, stop, alphabet=ALPHABET):
    mesh = distributed.make_mesh(1)
    with jax.set_mesh(mesh):
        evaluator = Evaluator(
            data, start, stop, alphabet, mesh, compute_dtype=jnp.float32, recurrence_name="scan"
        )
        return mesh, evaluator


def score(params, data, start, stop):
    mesh, evaluator = make_evaluator(data, start, stop)
    with jax.set_mesh(mesh):
        params = jax.device_put(jax.tree.map(np.float32, params), distributed.replicated(mesh))
        first, second = evaluator(params), evaluator(params)
    assert first == second
    return first


def by_definition(params, data, start, stop):
    """One pass over everything up to `stop`, in float64, from a zero state after a line break."""
    symbols = ALPHABET.encode(np.concatenate([[np.uint8(10)], data[:stop]]))
    hidden = params["head"]["kernel"].shape[0]
    zero = np.zeros((len(params["layers"]), 1, hidden))
    logits, _, _ = reference.forward(params, {"h": zero, "c": zero.copy()}, symbols[:-1, None])
    logits = logits[:, 0]
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


def test_every_byte_counts_once(monkeypatch):
    """With uniform predictions each byte costs ln V exactly, whatever the rows."""
    monkeypatch.setattr(evaluation, "MAX_ROWS", 7)
    params, _, _, _ = reference.random_case(0)
    params["head"] = jax.tree.map(np.zeros_like, params["head"])
    data = np.frombuffer(SYMBOLS * 500, np.uint8)
    for stop in (1, 255, 256, 2048, 2049, 5500):
        found = score(params, data, 0, stop)
        np.testing.assert_allclose(found.nats, np.log(len(SYMBOLS)), rtol=1e-6)


def test_a_byte_outside_the_alphabet_is_refused():
    with pytest.raises(UserError, match="0x7a at offset 2"):
        make_evaluator(np.frombuffer(b"abz", np.uint8), 0, 3)
