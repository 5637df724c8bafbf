"""A time step for sampling does not depend on the number of texts side by side."""

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest
from models import float32, network_of

from charlstm.model.decode_step import DecodeState, decode_step, decode_weights
from charlstm.model.recurrence import Scan


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("slow_from", [1, 2**20])
def test_a_text_alone_has_the_logits_that_it_has_beside_others(dtype, slow_from, monkeypatch):
    """A CPU multiplies a single column in another way than several."""
    monkeypatch.setattr("charlstm.model.decode_step._SLOW_FOR_A_COLUMN", slow_from)
    params, carry, inputs, _ = reference.random_case(3, hidden_size=64, streams=4)
    network = network_of(Scan(), dtype=dtype)

    @jax.jit
    def logits(carry, symbols):
        weights = decode_weights(network, float32(params))
        return decode_step(network, weights, DecodeState.of(carry), symbols)[0]

    carry = float32(carry)
    together = logits(carry, inputs[0])
    for text in range(4):
        own = {name: array[:, text : text + 1] for name, array in carry.items()}
        alone = logits(own, inputs[0, text : text + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, text], rtol=2e-5, atol=2e-6)
