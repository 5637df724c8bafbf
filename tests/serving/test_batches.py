"""Batches on the devices: every program gives a text the same bits, whatever stands beside it."""

import jax
import numpy as np
import pytest
from serving_models import MODELS

from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws
from charlstm.serving.batches import MOST_CELLS, Programs, nothing_given

PROMPT = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
STEPS = 40


def run(programs, width, place, cuts, *, records=False, filters=False, seed=5):
    """Reads a prompt and draws, in chunks, in a column among others.

    Returns what was read, the column at the end, and what was recorded of each time step.
    """
    others = np.random.default_rng(width)
    draws = Draws.alike(width, Settings(0.8), 1000)
    draws.seed[place], draws.lane[place] = seed, 2
    if filters:  # but not for this text
        others_columns = np.arange(width) != place
        draws.top_k[others_columns] = 3
        draws.top_p[others_columns] = 0.5
    cells = np.tile(np.arange(MOST_CELLS, dtype=np.int32)[:, None] % 20, (1, width))
    placed = programs.place({}, width)
    read, logits, states, begin = [], [], [], 0
    for count in cuts:
        given = nothing_given(width)
        given.symbols[:] = others.integers(0, 10, given.symbols.shape)
        given.count[:] = others.integers(0, count + 1, width)
        mine = PROMPT[begin : begin + count]
        given.symbols[: len(mine), place] = mine
        given.count[place], given.num_drawn[place] = len(mine), max(0, begin - len(PROMPT))
        placed, chunk = programs.advance(
            placed, width, given, draws, count, cells if records else None, filters
        )
        begin += count
        read.append(chunk.read[:, place])
        if records:
            logits.append(chunk.logits[..., place])
            states.append(chunk.cells[..., place])
    (column,) = programs.columns(placed, [place])
    assert column.num_read == STEPS
    recorded = (np.concatenate(logits), np.concatenate(states)) if records else None
    return np.concatenate(read), column, recorded


def bits(result):
    read, column, _ = result
    return [part.tobytes() for part in (read, *column.h, *column.c, column.logits)]


@pytest.fixture(scope="module")
def programs():
    return Programs(MODELS["float32"](), 8)


@pytest.mark.parametrize("width", [1, 8])
def test_every_program_and_every_cut_into_chunks_gives_the_same_bits(programs, width):
    """Whether logits are recorded, or others have filters; and whoever stands beside it."""
    whole = bits(run(programs, width, 0, [STEPS]))
    last = width - 1
    assert bits(run(programs, width, last, [1, 2, 4, 13, 20])) == whole
    if width > 1:
        assert bits(run(programs, width, last, [9, 31], filters=True)) == whole
    for filters in (False, True) if width > 1 else (True,):
        found = run(programs, width, last, [5, 5, 30], records=True, filters=filters)
        assert bits(found) == whole
        read, column, (logits, cells) = found
        np.testing.assert_array_equal(read[: len(PROMPT)], PROMPT)
        # Each record stands with its byte: logits before it was read, and cells after.
        states = np.concatenate(column.c)
        np.testing.assert_array_equal(cells[-1], states[np.arange(MOST_CELLS) % 20])
        assert (logits[0] == 0).all() and (logits[1:] != 0).any(axis=1).all()
    assert bits(run(programs, width, 0, [STEPS], seed=6)) != whole


def test_the_likeliest_byte_follows_from_the_logits_that_were_recorded(programs):
    draws = Draws.alike(8, Settings(0), 0)
    given = nothing_given(8)
    given.symbols[:2], given.count[:] = 3, 2
    cells = np.zeros((MOST_CELLS, 8), np.int32)
    _, chunk = programs.advance(programs.place({}, 8), 8, given, draws, 30, cells, False)
    np.testing.assert_array_equal(chunk.read[2:], chunk.logits[2:].argmax(axis=1))


def test_columns_come_back_as_they_were_placed(programs):
    draws = np.random.default_rng(0)
    _, column, _ = run(programs, 1, 0, [STEPS])
    columns = [
        column._replace(
            h=[draws.random(part.shape, np.float32) for part in column.h], num_read=number
        )
        for number in range(5)
    ]
    placed = programs.place(dict(enumerate([*columns[:2], None, *columns[2:]])), 8)
    for index, wanted in ((0, 0), (1, 1), (3, 2), (4, 3), (5, 4)):
        (found,) = programs.columns(placed, [index])
        jax.tree.map(np.testing.assert_array_equal, found, columns[wanted])
    (empty,) = programs.columns(placed, [2])
    assert empty.num_read == 0 and not any(part.any() for part in (*empty.h, *empty.c))


@pytest.mark.parametrize("width", [1, 8])
def test_a_text_that_begins_forgets_what_stood_in_its_column(programs, width):
    """And the others go on."""
    draws, nobody = Draws.alike(width, Settings(), 0), np.zeros(width, bool)

    def advanced(placed, begins):
        given = nothing_given(width)
        given.symbols[:], given.count[:] = np.arange(width), 3
        return programs.advance(
            placed, width, given._replace(begins=begins), draws, 20, None, False
        )

    def columns(placed):
        found = programs.columns(placed, range(width))
        return [[part.tobytes() for part in (*one.h, *one.c, one.logits)] for one in found]

    before, _ = advanced(programs.place({}, width), nobody)
    fresh, went_on = columns(before), columns(advanced(before, nobody)[0])
    before, _ = advanced(programs.place({}, width), nobody)
    one_begins = np.arange(width) == width // 2
    after, _ = advanced(before, one_begins)
    assert columns(after) == [
        fresh[index] if begins else went_on[index] for index, begins in enumerate(one_begins)
    ]
    assert fresh != went_on
    numbers = [column.num_read for column in programs.columns(after, range(width))]
    assert numbers == [20 if begins else 40 for begins in one_begins]


@pytest.mark.parametrize(
    ("most", "widths"),
    [(1, [1]), (2, [1, 8]), (8, [1, 8]), (10, [1, 8, 64]), (512, [1, 8, 64, 512])],
)
def test_the_largest_width_holds_as_many_texts_as_are_allowed(programs, most, widths):
    found = Programs(programs.model, most)
    assert found.widths == widths
    assert found.width_for(1) == 1 and found.width_for(most) == widths[-1]


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_texts_that_are_said_to_agree_have_the_same_bits_at_every_width(programs, name):
    if name != "float32":
        programs = Programs(MODELS[name](), 8)
    alone = bits(run(programs, 1, 0, [STEPS]))
    in_company = bits(run(programs, 8, 7, [STEPS]))
    assert in_company[0] == alone[0]  # the symbols: what may differ is rounding
    assert in_company == alone or not programs.agree()
