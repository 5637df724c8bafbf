"""Embedding, normalisation and connections in all that reads or writes with a trained model."""

import math

import jax
import jax.numpy as jnp
import network_reference as reference
import numpy as np
import pytest
from recurrence_checks import assert_close, float32

from charlstm.data.corpus import Alphabet
from charlstm.inspection import recording
from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.forcing import Forced

SYMBOLS = b"\n abcdefghi"
CASES = [("plain", 5, False), ("residual", 0, False), ("skip", 5, True), ("residual", 4, True)]


def params_of(embedding, layer_norm):
    size = {"symbols": len(SYMBOLS), "hidden": 6, "num_layers": 3, "streams": 1}
    params, _ = reference.random_params(5, embedding=embedding, layer_norm=layer_norm, **size)
    return jax.tree.map(lambda leaf: np.float64(np.float32(leaf)), params)


def logits_of(params, symbols, connections):
    """[N, V] of what comes after each symbol, float64."""
    carry = {name: np.zeros((3, 1, 6)) for name in "hc"}
    inputs = np.asarray(symbols)[:, None]
    with jax.enable_x64(True):
        read, _ = reference.outputs(params, carry, inputs, connections=connections)
        return np.asarray(reference.logits(params, read))[:, 0]


@pytest.mark.parametrize("connections, embedding, layer_norm", CASES)
def test_what_is_drawn_is_what_the_reference_draws(connections, embedding, layer_norm):
    """Greedily; a prompt read by the window and one read byte by byte, as with forced cells."""
    params = params_of(embedding, layer_norm)
    symbols = [1, 5, 2, 2, 9]
    while len(symbols) < 25:
        symbols.append(int(logits_of(params, symbols, connections)[-1].argmax()))
    for forced in (), (Forced(0, 0, 0.0),):
        decoder = Decoder(1, Settings(temperature=0, forced=forced), connections=connections)
        model = decoder.load(float32(params))
        prompt = np.array(symbols[: 1 if forced else 5], np.uint8)
        # A cell forced to 0 before the first byte is as it was.
        count = 1 if forced else 20
        drawn = np.concatenate(list(decoder(model, prompt, count, seed=0)), axis=1)[0]
        first = len(prompt)
        wanted = (
            symbols[first:] if not forced else [logits_of(params, prompt, connections)[0].argmax()]
        )
        assert drawn.tolist() == wanted


@pytest.mark.parametrize("connections, embedding, layer_norm", CASES)
def test_what_is_recorded_is_what_the_reference_does(connections, embedding, layer_norm):
    params = params_of(embedding, layer_norm)
    text = np.frombuffer(SYMBOLS, np.uint8)[np.random.default_rng(2).integers(0, 11, 60)]
    alphabet = Alphabet("corpus", SYMBOLS)
    found = recording.record(float32(params), text, alphabet, jnp.float32, connections)
    symbols = alphabet.encode(np.concatenate([[recording.BYTE_BEFORE_TEXT], text]).astype(np.uint8))
    logits = logits_of(params, symbols, connections)
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    bits = -log_p[np.arange(60), symbols[1:]] / math.log(2)
    assert_close(found.bits_per_byte, bits.mean())
    with jax.enable_x64(True):
        carry = {name: np.zeros((3, 1, 6)) for name in "hc"}
        _, after = reference.outputs(params, carry, symbols[:, None], connections=connections)
        cells = np.asarray(after["c"]).ravel()
    off = found.cells[:, -1] - 127 * cells / (1 + np.abs(cells))
    assert np.abs(off).max() <= 0.502
