"""What is recorded of a model that reads is what an LSTM in NumPy does."""

import math

import jax
import lstm_reference
import network_reference
import numpy as np
import pytest
from models import model_of
from recurrence_checks import assert_close

from charlstm.data.corpus import Alphabet
from charlstm.inspection import recording

SYMBOLS = b"\n abcdefghi"
ALPHABET = Alphabet("corpus", SYMBOLS)


@pytest.fixture(scope="module")
def params():
    float64, *_ = lstm_reference.random_case(3, hidden_size=6, symbols=len(SYMBOLS))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), float64)


def text_of(num_bytes):
    rng = np.random.default_rng(1)
    return np.frombuffer(SYMBOLS, np.uint8)[rng.integers(0, len(SYMBOLS), num_bytes)]


@pytest.fixture(scope="module", params=[1, 300, 20_000], ids=["byte", "row", "rows"])
def case(request, params):
    """The text, its recording, and the reference: logits, states and gates of every step."""
    text = text_of(request.param)
    inputs = ALPHABET.encode(np.concatenate([[recording.BYTE_BEFORE_TEXT], text]).astype(np.uint8))
    carry = {key: np.zeros((2, 1, 6)) for key in "hc"}
    float64 = jax.tree.map(np.float64, params)
    logits, _, tape = lstm_reference.forward(float64, carry, inputs[:, None])
    return text, recording.record(model_of(params, SYMBOLS), text), logits[:, 0], tape


def test_recorded_cells_are_those_of_the_reference(case):
    text, found, _, tape = case
    states = np.array([[step[7][0] for step in steps] for steps, _ in tape[1:]])  # [N, L, H]
    wanted = states.reshape(len(text), -1).T
    assert found.cells.shape == wanted.shape
    off = np.abs(found.cells - 127 * wanted / (1 + np.abs(wanted)))
    assert off.max() <= 0.502  # rounding, and float32


def test_predictions_and_surprise_are_those_of_the_reference(case):
    text, found, logits, _ = case
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    order = np.argsort(-log_p[1:], axis=-1)[:, :5]
    assert (found.likeliest == np.frombuffer(SYMBOLS, np.uint8)[order]).mean() > 0.999
    probabilities = np.take_along_axis(np.exp(log_p[1:]), order, axis=-1)
    np.testing.assert_allclose(found.probabilities, 255 * probabilities, atol=0.51)
    bits = -log_p[np.arange(len(text)), ALPHABET.encode(text)] / math.log(2)
    np.testing.assert_allclose(found.surprise, np.minimum(16 * bits, 255), atol=0.51)
    assert found.bits_per_byte == pytest.approx(bits.mean(), rel=1e-5)


def test_gates_are_counted_as_saturated_beyond_the_bounds(case):
    text, found, _, tape = case
    for layer in range(2):
        for gate, place in enumerate((3, 4, 6)):  # i, f and o on the tape
            values = np.array([steps[layer][place][0] for steps, _ in tape[1:]])
            wanted = np.stack([(values < 0.1).mean(0), (values > 0.9).mean(0)])
            np.testing.assert_allclose(
                found.saturation[layer, gate], wanted, atol=1.01 / len(text) if len(text) > 1 else 0
            )


def test_squashed_states_keep_their_order_and_size():
    states = np.linspace(-20, 20, 4001).astype(np.float32)
    squashed = np.asarray(recording.squash(states))
    assert (np.diff(squashed.astype(int)) >= 0).all()
    near = np.abs(states) <= 1
    np.testing.assert_allclose(recording.unsquash(squashed[near]), states[near], atol=0.017)
    assert np.isfinite(recording.unsquash(recording.squash(np.float32([-1e9, 1e9])))).all()


def test_few_symbols_have_fewer_predictions():
    small, *_ = lstm_reference.random_case(5, hidden_size=4, symbols=3)
    found = recording.record(model_of(small, b"\nab"), np.frombuffer(b"abba\n", np.uint8))
    assert (found.probabilities[:, 3:] == 0).all() and (found.probabilities[:, :3] > 0).all()


@pytest.mark.parametrize(
    "connections, embedding, layer_norm",
    [("plain", 5, False), ("residual", 0, False), ("skip", 5, True), ("residual", 4, True)],
)
def test_every_structure_is_recorded_as_the_reference_does(connections, embedding, layer_norm):
    params = network_reference.rounded_params(
        len(SYMBOLS), embedding=embedding, layer_norm=layer_norm
    )
    text = np.frombuffer(SYMBOLS, np.uint8)[np.random.default_rng(2).integers(0, 11, 60)]
    model = model_of(params, SYMBOLS, layer_norm=layer_norm, connections=connections)
    found = recording.record(model, text)
    symbols = ALPHABET.encode(np.concatenate([[recording.BYTE_BEFORE_TEXT], text]).astype(np.uint8))
    logits, after = network_reference.read_alone(params, symbols, connections)
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    bits = -log_p[np.arange(60), symbols[1:]] / math.log(2)
    assert_close(found.bits_per_byte, bits.mean())
    cells = after["c"].ravel()
    off = found.cells[:, -1] - 127 * cells / (1 + np.abs(cells))
    assert np.abs(off).max() <= 0.502
