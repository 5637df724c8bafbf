"""Sampling in bfloat16, whatever the number of texts and the structure of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charlstm.model import language_model
from charlstm.model.recurrence import with_structure
from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.forcing import Forced

PROMPT = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.mark.parametrize("forced", [(), (Forced(0, 1, 0.5),)], ids=["free", "forced"])
@pytest.mark.parametrize("connections", ["plain", "skip"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_likeliest_symbol_is_drawn(batch, layer_norm, connections, forced):
    params = language_model.init_params(
        jax.random.key(0),
        alphabet_size=8,
        num_layers=2,
        hidden_size=32,
        forget_bias=1.0,
        layer_norm=layer_norm,
    )
    settings = Settings(temperature=0, forced=forced)
    decoder = Decoder(batch, settings, jnp.bfloat16, connections=connections)
    drawn = np.concatenate(list(decoder(decoder.load(params), PROMPT, 6, 0)), axis=1)
    assert drawn.shape == (batch, 6)
    assert (drawn == drawn[0]).all() and drawn.max() < 8
    if forced:
        return
    logits, _ = language_model.apply(
        params,
        language_model.zero_carry(params, 1),
        np.concatenate([PROMPT, drawn[0]])[:, None],
        recurrence_name=with_structure("scan", layer_norm=layer_norm, connections=connections),
    )
    behind = np.asarray(logits)[len(PROMPT) - 1 : -1, 0]
    # As good as the best in float32, up to the rounding of bfloat16.
    np.testing.assert_array_less(
        behind.max(axis=1) - behind[np.arange(6), drawn[0]], 0.02 * np.ptp(behind) + 1e-6
    )
