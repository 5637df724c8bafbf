"""A clamped cell is held before every byte that is read."""

import lstm_reference
import numpy as np
import pytest
from models import model_of

from charlstm.errors import UserError
from charlstm.sampling import texts
from charlstm.sampling.clamping import Clamp, parse
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings


def greedy_by_reference(params, prompt, num_symbols, clamps):
    """What an LSTM in NumPy draws, its cells set before each step."""
    carry = {key: np.zeros((2, 1, 12)) for key in "hc"}
    symbols, drawn = list(prompt), []
    for _ in range(len(prompt) + num_symbols - 1):
        for layer, cell, value in clamps:
            carry["c"][layer, :, cell] = value
        symbol = symbols.pop(0) if symbols else drawn[-1]
        logits, carry, _ = lstm_reference.forward(params, carry, np.array([[symbol]]))
        if not symbols:
            drawn.append(int(logits[0, 0].argmax()))
    return drawn


@pytest.mark.parametrize("clamps", [(), (Clamp(0, 3, 4.0),), (Clamp(0, 3, -4.0), Clamp(1, 7, 2))])
def test_clamped_cells_change_the_text_as_the_reference_says(clamps):
    params, *_ = lstm_reference.random_case(11)
    prompt = np.array([1, 5, 2, 2, 9], np.uint8)
    wanted = greedy_by_reference(params, prompt, 40, clamps)
    assert len(wanted) == 40 and (
        not clamps or wanted != greedy_by_reference(params, prompt, 40, ())
    )
    loaded = texts.load(model_of(params, b"\n abcdefghi"))
    decoder = Decoder(2, Settings(temperature=0, clamps=clamps))
    drawn = np.concatenate(list(decoder(loaded, prompt, 40, seed=0)), axis=1)
    assert drawn.tolist() == [wanted, wanted]


def test_what_is_written_is_read():
    assert parse(["0:3=-2.5", "1:0=1e1"], 2, 4) == (Clamp(0, 3, -2.5), Clamp(1, 0, 10.0))


@pytest.mark.parametrize(
    "spec", ["1", "0:1", "0:1=x", "0:1=nan", "a:1=2", "0:-1=2", "0:1=inf", "0:1=1e39"]
)
def test_what_is_badly_written_is_refused(spec):
    with pytest.raises(UserError, match="LAYER:CELL=VALUE"):
        parse([spec], 2, 4)


@pytest.mark.parametrize("spec", ["2:0=1", "0:4=1"])
def test_a_cell_that_is_not_there_is_refused(spec):
    with pytest.raises(UserError, match="layers 0 to 1 and in each cells 0 to 3"):
        parse([spec], 2, 4)
