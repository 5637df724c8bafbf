"""What is drawn from a model: resets, prefixes, bfloat16, and every structure of a network."""

import jax
import jax.numpy as jnp
import lstm_reference
import network_reference
import numpy as np
import pytest
from models import model_of, network_of

from charlstm.config import ModelConfig
from charlstm.model.parameters import init_params, zero_carry
from charlstm.sampling import texts
from charlstm.sampling.clamping import Clamp
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings

SYMBOLS = b"\n abcdefghi"
NUM_LAYERS, HIDDEN_SIZE = 2, 12
PROMPT = np.array([3, 1, 4, 1, 5], np.uint8)


def together(pieces):
    """All that was drawn, [B, n]."""
    return np.concatenate(list(pieces), axis=1)


def greedy_by_reference(params, prompt, num_symbols, reset_every, clamps=()):
    """What an LSTM in NumPy draws, its state made zero before every so many symbols it reads."""
    symbols = list(prompt)
    for place in range(len(prompt) + num_symbols - 1):
        if place % reset_every == 0:
            carry = {key: np.zeros((NUM_LAYERS, 1, HIDDEN_SIZE)) for key in "hc"}
        for layer, cell, value in clamps:
            carry["c"][layer, :, cell] = value
        logits, carry, _ = lstm_reference.forward(params, carry, np.array([[symbols[place]]]))
        if place + 1 >= len(prompt):
            symbols.append(int(logits[0, 0].argmax()))
    return symbols[len(prompt) :]


@pytest.mark.parametrize("reset_every", [1, 3, 5, 64])
@pytest.mark.parametrize("clamps", [(), (Clamp(0, 3, 4.0),)])
def test_the_state_is_reset_counting_from_the_start_of_the_prompt(reset_every, clamps):
    params, *_ = lstm_reference.random_case(11)
    prompt = np.array([1, 5, 2, 2, 9], np.uint8)
    wanted = greedy_by_reference(params, prompt, 150, reset_every, clamps)
    decoder = Decoder(2, Settings(temperature=0, clamps=clamps))
    loaded = texts.load(model_of(params, SYMBOLS, reset_every=reset_every))
    assert together(decoder(loaded, prompt, 150, seed=0)).tolist() == [wanted, wanted]


# Each two of the settings meet.
@pytest.mark.parametrize(
    ("reset_every", "clamps", "temperature"),
    [
        (reset_every, clamps, (0, 1.0)[(place + len(clamps)) % 2])
        for place, reset_every in enumerate((0, 3, 5, 64))
        for clamps in ((), (Clamp(0, 3, 4.0),))
    ],
    ids=str,
)
def test_a_prompt_read_in_two_parts_is_continued_as_one_read_at_once(
    reset_every, clamps, temperature
):
    params, *_ = lstm_reference.random_case(11)
    prompt = np.array([1, 5, 2, 2, 9, 0, 7, 7, 3, 10, 4], np.uint8)
    decoder = Decoder(2, Settings(temperature=temperature, clamps=clamps))
    loaded = texts.load(model_of(params, SYMBOLS, reset_every=reset_every))
    wanted = together(decoder(loaded, prompt, 60, seed=3))
    if temperature == 0:
        every = reset_every or 1000
        assert wanted[0].tolist() == greedy_by_reference(params, prompt, 60, every, clamps)
    for cut in (1, 2, 3, 5, 6, 10):
        first = decoder.read(loaded, prompt[:cut])
        assert first.num_read == cut
        both = decoder.read(loaded, prompt[cut:], after=first)
        assert both.num_read == len(prompt)
        drawn = together(decoder.draw(loaded, both, 60, seed=3))
        np.testing.assert_array_equal(drawn, wanted, err_msg=f"cut after {cut}")


@pytest.mark.parametrize("reset_every", [0, 4])
def test_a_prefix_is_continued_alike_by_the_same_seed_any_number_of_times(reset_every):
    params, *_ = lstm_reference.random_case(12)
    decoder = Decoder(3, Settings(temperature=1.0))
    loaded = texts.load(model_of(params, SYMBOLS, reset_every=reset_every))
    prefix = decoder.read(loaded, PROMPT)
    first, second, other = (
        together(decoder.draw(loaded, prefix, 40, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(together(decoder(loaded, PROMPT, 40, seed=1)), first)
    assert (other != first).any() and (first[0] != first[1]).any()


@pytest.mark.parametrize("temperature", [1e-10, 1.5e-45])
def test_a_tiny_temperature_draws_what_the_reference_finds_likeliest(temperature):
    """In the jitted loop, where XLA may fuse a product and a sum and round them once."""
    params, *_ = lstm_reference.random_case(11)
    wanted = greedy_by_reference(params, PROMPT, 60, 1000)
    decoder = Decoder(1, Settings(temperature))
    drawn = together(decoder(texts.load(model_of(params, SYMBOLS)), PROMPT, 60, seed=0))
    assert drawn[0].tolist() == wanted


CLAMPS = (Clamp(0, 1, 0.5),)


# Each two of the settings meet, with free cells and with one that is clamped.
@pytest.mark.parametrize(
    ("batch", "layer_norm", "connections", "clamps"),
    [
        (1, False, "plain", ()),
        (1, True, "skip", ()),
        (2, False, "skip", ()),
        (2, True, "plain", ()),
        (64, False, "plain", ()),
        (64, True, "skip", ()),
        (1, False, "skip", CLAMPS),
        (2, True, "skip", CLAMPS),
        (64, True, "plain", CLAMPS),
    ],
    ids=str,
)
def test_the_likeliest_symbol_is_drawn_in_bfloat16(batch, layer_norm, connections, clamps):
    config = ModelConfig(num_layers=2, hidden_size=32, forget_bias=1.0, layer_norm=layer_norm)
    params = init_params(jax.random.key(0), config, 8)
    options = {"layer_norm": layer_norm, "connections": connections}
    loaded = texts.load(model_of(params, bytes(range(8)), dtype=jnp.bfloat16, **options))
    decoder = Decoder(batch, Settings(temperature=0, clamps=clamps))
    drawn = together(decoder(loaded, PROMPT, 6, 0))
    assert drawn.shape == (batch, 6)
    assert (drawn == drawn[0]).all() and drawn.max() < 8
    if clamps:
        return
    symbols = np.concatenate([PROMPT, drawn[0]])[:, None]
    logits, _ = network_of(**options).apply(params, zero_carry(params, 1), symbols)
    behind = np.asarray(logits)[len(PROMPT) - 1 : -1, 0]
    # As good as the best in float32, up to the rounding of bfloat16.
    np.testing.assert_array_less(
        behind.max(axis=1) - behind[np.arange(6), drawn[0]], 0.02 * np.ptp(behind) + 1e-6
    )


@pytest.mark.parametrize(
    "connections, embedding, layer_norm",
    [("plain", 5, False), ("residual", 0, False), ("skip", 5, True), ("residual", 4, True)],
)
def test_every_structure_draws_what_the_reference_draws(connections, embedding, layer_norm):
    """Greedily; a prompt read by the window and one read byte by byte, as with clamped cells."""
    params = network_reference.rounded_params(
        len(SYMBOLS), embedding=embedding, layer_norm=layer_norm
    )

    model = model_of(params, SYMBOLS, layer_norm=layer_norm, connections=connections)
    loaded = texts.load(model)

    def draw(prompt, count, clamps=()):
        decoder = Decoder(1, Settings(temperature=0, clamps=clamps))
        return together(decoder(loaded, prompt, count, seed=0))[0].tolist()

    drawn = draw(PROMPT, 20)
    logits, _ = network_reference.read_alone(params, [*PROMPT, *drawn], connections)
    likeliest = logits.argmax(axis=1).tolist()
    assert drawn == likeliest[len(PROMPT) - 1 : -1]
    # A cell clamped to 0 before the first byte is as it was.
    assert draw(PROMPT[:1], 1, (Clamp(0, 0, 0.0),)) == likeliest[:1]
