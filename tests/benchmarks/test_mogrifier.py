"""The Mogrifier that is held against the plain LSTM."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import mogrifier
from charlstm.config import Config, ModelConfig
from charlstm.model import parameters
from charlstm.model.network import Network, next_symbol_nats
from charlstm.runtime.targets import Target

CONFIG = Config(model=ModelConfig(num_layers=2, hidden_size=6))
NUM_SYMBOLS, EMBEDDING_SIZE = 11, 4


def test_input_and_output_scale_each_other_in_turn() -> None:
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(3, 4)), rng.normal(size=(3, 6))
    q1, r1, q2 = (rng.normal(size=size) for size in ((6, 4), (4, 6), (6, 4)))

    def gate(z: np.ndarray) -> np.ndarray:
        return 2 / (1 + np.exp(-z))

    x1 = gate(h @ q1) * x
    h1 = gate(x1 @ r1) * h
    x2 = gate(h1 @ q2) * x1

    got = mogrifier.mogrified(
        [jnp.asarray(w) for w in (q1, r1, q2)], jnp.asarray(x), jnp.asarray(h)
    )
    np.testing.assert_allclose(got[0], x2, rtol=1e-5)
    np.testing.assert_allclose(got[1], h1, rtol=1e-5)


def test_without_rounds_it_is_the_plain_network() -> None:
    params = mogrifier.initial_params(CONFIG, NUM_SYMBOLS, 0, EMBEDDING_SIZE)
    window = jax.random.randint(jax.random.key(2), (9, 5), 0, NUM_SYMBOLS)
    carry = parameters.zero_carry(params, 5)
    network = Network.of(CONFIG.model, Target.of_this_machine()).in_dtype(jnp.float32)

    nats, after = mogrifier.loss(network, params, carry, window)

    logits, expected = network.apply(params, carry, window[:-1])
    scores, _ = next_symbol_nats(logits, window[1:])
    np.testing.assert_allclose(nats, jnp.mean(scores), rtol=1e-5)
    np.testing.assert_allclose(after["h"], expected["h"], rtol=1e-4, atol=1e-6)


def test_every_layer_has_matrices_that_fit_what_they_scale() -> None:
    params = mogrifier.initial_params(CONFIG, NUM_SYMBOLS, 3, EMBEDDING_SIZE)
    sizes = [[matrix.shape for matrix in layer] for layer in params["gating"]]
    assert sizes == [[(6, 4), (4, 6), (6, 4)], [(6, 6)] * 3]
