"""A model whose state was zero before every window in training is sampled the same way."""

import jax
import lstm_reference
import numpy as np
import pytest

from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.forcing import Forced

NUM_LAYERS, HIDDEN_SIZE = 2, 12


def greedy_by_reference(params, prompt, num_symbols, reset_every, forced=()):
    """What an LSTM in NumPy draws, its state made zero before every so many symbols it reads."""
    symbols = list(prompt)
    for place in range(len(prompt) + num_symbols - 1):
        if place % reset_every == 0:
            carry = {key: np.zeros((NUM_LAYERS, 1, HIDDEN_SIZE)) for key in "hc"}
        for layer, cell, value in forced:
            carry["c"][layer, :, cell] = value
        logits, carry, _ = lstm_reference.forward(params, carry, np.array([[symbols[place]]]))
        if place + 1 >= len(prompt):
            symbols.append(int(logits[0, 0].argmax()))
    return symbols[len(prompt) :]


@pytest.mark.parametrize("reset_every", [1, 3, 5, 64])
@pytest.mark.parametrize("forced", [(), (Forced(0, 3, 4.0),)])
def test_the_state_is_reset_counting_from_the_start_of_the_prompt(reset_every, forced):
    params, *_ = lstm_reference.random_case(11)
    prompt = np.array([1, 5, 2, 2, 9], np.uint8)
    wanted = greedy_by_reference(params, prompt, 150, reset_every, forced)
    decoder = Decoder(2, Settings(temperature=0, forced=forced, reset_every=reset_every))
    model = decoder.load(jax.tree.map(np.float32, params))
    drawn = np.concatenate(list(decoder(model, prompt, 150, seed=0)), axis=1)
    assert drawn.tolist() == [wanted, wanted]
