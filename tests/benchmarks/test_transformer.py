"""The transformer that charlstm is compared with; it takes PyTorch."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.competitors.torch_transformer import Recipe, Training  # noqa: E402

TINY = Recipe(layers=2, heads=2, width=16, context=8, batch=4, dropout=0.0, warmup=0)


@pytest.fixture
def training():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others are at work, too
    text = np.tile(np.array([0, 1, 2, 3, 4, 3, 1], np.uint8), 100)
    yield Training(TINY, text, text[:61], 5, autocast=None, compiled=False)
    torch.set_num_threads(threads)


def test_pytorch_transformer_learns_a_text_that_repeats(training):
    before = training.bits_per_byte()
    assert before == pytest.approx(math.log2(5), abs=0.3)
    for _ in range(300):
        training.update(300)
    assert training.bits_per_byte() < before - 1


def test_pytorch_transformer_is_scored_on_every_byte_with_half_a_context_or_more(training):
    for _ in range(50):
        training.update(50)
    text = training._valid
    network, bits, counted = training.network.eval(), 0.0, 0
    with torch.inference_mode():
        for place in range(1, len(text)):
            # Windows begin at multiples of four; the last one ends with the text.
            starts = [*range(0, len(text) - 8, 4), len(text) - 9]
            start = next(start for start in starts if place <= start + 8)
            assert place - start >= min(place, 4)
            logits = network(text[None, start:place])[0, -1]
            bits -= float(torch.log_softmax(logits, -1)[text[place]]) / math.log(2)
            counted += 1
    assert training.bits_per_byte() == pytest.approx(bits / counted, rel=1e-5)
