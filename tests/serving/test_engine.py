"""The engine: texts are those of `charlstm sample`, whatever else is made at the same time."""

import time

import numpy as np
import pytest
from serving_models import MODELS, Asked, ask, sampled

from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws
from charlstm.serving import engine as engine_module
from charlstm.serving.batches import nothing_given
from charlstm.serving.engine import MOST_ALONE
from charlstm.serving.memory import Memory
from charlstm.serving.sequences import LENGTH, STOP, Sequence, Wish

ENDLESS = 10**6  # bytes, which no test waits for


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def engine(engines):
    """The engine of the small model, where nothing is going on."""
    found = engines("float32")
    until(lambda: not found._unfinished and not found._waiting)
    return found


@pytest.fixture(scope="module")
def wide_engine(new_engine):
    """An engine with a width of 64 columns, for 20 texts."""
    return new_engine(MODELS["float32"](), max_batch=20)


def be_quiet(engine, *asked):
    """Gives texts up, and waits until their places are free."""
    for one in asked:
        one.text.cancel()
    until(lambda: engine.counts.active == 0 and engine.num_waiting == 0)


# Of the texts beside those that are looked at: recorded, with filters, both.
COMPANY = {
    "float32": [{"top_p": 0.6}, {"logits": True}, {"cells": (3, 4), "top_k": 2}],
    "resets": [{}],
    "bfloat16": [{"cells": (3, 4), "top_k": 2}],
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_seeded_text_is_that_of_sample_at_any_load(engines, name):
    """Alone and among others, which come and go, have filters, and are recorded."""
    engine = engines(name)
    wanted = sampled(engine.model, b"some words", 150, seed=7, count=3)
    assert len({*wanted}) == 3

    def ask_all():
        return [ask(engine, b"some words", 150, seed=7, lane=lane) for lane in range(3)]

    assert [one.wait() for one in ask_all()] == wanted
    for wishes in COMPANY[name]:
        sizes = (20, 110, 200)
        others = [ask(engine, b"xyz", size, is_exact=False, **wishes) for size in sizes]
        assert [one.wait() for one in ask_all()] == wanted
        assert [len(one.wait()) for one in others] == list(sizes)
    lone = ask(engine, b"some words", 150, seed=7, lane=1)
    assert lone.wait() == wanted[1] and lone.pieces[-1].finish == LENGTH


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.7, "top_k": 9}, {"top_p": 0.6, "temperature": 1.5}, {"temperature": 0}],
    ids=str,
)
def test_settings_are_those_of_sample(engine, settings):
    wanted = sampled(engine.model, b"and more of them", 100, seed=8, **settings)
    others = [ask(engine, b"x", 50, is_exact=False, seed=seed) for seed in range(2)]
    for is_exact in (True, False):
        asked = ask(engine, b"and more of them", 100, seed=8, is_exact=is_exact, **settings)
        assert [asked.wait()] == wanted
    for one in others:
        one.wait()


def test_texts_that_share_a_batch_of_many_are_those_of_sample(wide_engine):
    """Without exactness a rounding may differ, which hardly ever changes a byte."""
    wanted = sampled(wide_engine.model, b"hello", 40, seed=1, count=30)
    before = wide_engine.counts.bytes_made
    wishes = {"seed": 1, "is_exact": False}
    asked = [ask(wide_engine, b"hello", 40, lane=lane, **wishes) for lane in range(30)]
    assert [one.wait() for one in asked] == wanted
    assert wide_engine.counts.bytes_made - before == 30 * 40


def test_a_known_beginning_costs_its_end_only_and_gives_the_same_text(engines):
    for name in ("float32", "resets"):
        engine = engines(name)
        start = b"the beginning of this prompt is as long as it need be to be kept by the engine "
        prompts = [start + end for end in (b"one", b"another one", b"")]
        ask(engine, start, 1).wait()
        for prompt in prompts:
            before = engine.counts.bytes_read, engine.counts.bytes_remembered
            found = ask(engine, prompt, 50, seed=3).wait()
            assert found == sampled(engine.model, prompt, 50, seed=3)[0]
            assert engine.counts.bytes_read - before[0] == len(prompt) - len(start)
            assert engine.counts.bytes_remembered - before[1] == len(start)
        # And a text that goes on from one that was made.
        text = prompts[1] + sampled(engine.model, prompts[1], 50, seed=3)[0]
        before = engine.counts.bytes_read
        assert ask(engine, text + b" so", 30).wait() == sampled(engine.model, text + b" so", 30)[0]
        assert engine.counts.bytes_read - before < len(start)


def test_the_cache_stays_within_its_bytes(new_engine):
    engine = new_engine(MODELS["float32"](), cache_bytes=20_000)
    for number in range(30):
        prompt = b"%d" % number
        prompt = bytes(b"abcdefghij"[digit - 48] for digit in prompt) * 60
        assert ask(engine, prompt, 20).wait() == sampled(engine.model, prompt, 20)[0]
        assert 0 < engine.counts.cache_bytes <= 20_000


def test_what_was_computed_in_company_is_not_taken_for_exact(engine):
    """A state out of a wide batch may be rounded otherwise than one that was computed alone."""
    prompt = b"a prompt that several texts share and that is long enough to be kept in the cache"
    together = [ask(engine, prompt, 3, lane=lane, is_exact=False) for lane in range(5)]
    for one in together:
        one.wait()
    exact = ask(engine, prompt, 20, logits=True)
    exact.wait()
    symbols = engine.model.alphabet.encode(prompt)
    placed, begin, found = engine._programs.place({}, 1), 0, []
    for count in (50, 40, len(symbols) + 20 - 90):
        given = nothing_given(1)
        mine = symbols[begin : begin + count]
        given.symbols[: len(mine), 0] = mine
        given.count[0], given.num_drawn[0] = len(mine), max(0, begin - len(symbols))
        cells = np.zeros((64, 1), np.int32)
        placed, chunk = engine._programs.advance(
            placed, 1, given, Draws.alike(1, Settings(), 0), count, cells, False
        )
        begin += count
        found.append(chunk.logits[..., 0])
    np.testing.assert_array_equal(exact.logits(), np.concatenate(found)[len(symbols) :])


def test_texts_with_one_prompt_read_it_once(engine):
    prompt = engine.model.alphabet.encode(b"once upon a time there was a prompt " * 60)
    before = engine.counts.bytes_read, engine.counts.bytes_made
    lanes = [0, 1, 2] * 2
    asked = [ask(engine, prompt, 30, seed=2, lane=lane) for lane in lanes]
    wanted = 2 * sampled(engine.model, engine.model.alphabet.decode(prompt), 30, seed=2, count=3)
    assert [one.wait() for one in asked] == wanted
    assert engine.counts.bytes_made - before[1] == 6 * 30
    assert engine.counts.bytes_read - before[0] < 1.5 * len(prompt)
    # Where nothing is kept, each reads its own, side by side.
    keeps, engine._memory = engine._memory, Memory(0)
    again = [ask(engine, prompt, 30, seed=2, lane=lane) for lane in lanes]
    assert [one.wait() for one in again] == wanted
    engine._memory = keeps


def test_many_texts_with_one_prompt_join_together_when_it_was_read(wide_engine):
    """Also among so many that chunks do not end where prompts do."""
    others = [ask(wide_engine, b"a", ENDLESS, is_exact=False) for _ in range(5)]
    prompt = wide_engine.model.alphabet.encode(b"many texts go on from this prompt " * 90)
    for is_known in (False, True):
        before = wide_engine.counts.bytes_read, wide_engine.counts.chunks
        wishes = {"seed": 3, "is_exact": False}
        asked = [ask(wide_engine, prompt, 20, lane=lane, **wishes) for lane in range(12)]
        texts = [one.wait() for one in asked]
        read, chunks = wide_engine.counts.bytes_read, wide_engine.counts.chunks
        text = wide_engine.model.alphabet.decode(prompt)
        assert texts[:3] == sampled(wide_engine.model, text, 20, seed=3, count=3)
        assert len(set(texts)) == 12
        read, chunks = read - before[0], chunks - before[1]
        assert read <= 12 * 63 if is_known else len(prompt) <= read < 1.3 * len(prompt)
        assert chunks <= 12 if is_known else chunks < 100
    be_quiet(wide_engine, *others)


def test_a_long_prompt_does_not_stall_others(engine):
    long = ask(engine, b"abcdefg " * 25_000, 10)
    until(lambda: long.text.num_read > 0)
    assert ask(engine, b"short", 100, seed=4).wait() == sampled(engine.model, b"short", 100, 4)[0]
    assert 0 < long.text.num_read < 200_000
    be_quiet(engine, long)
    assert not long.has_ended and engine.counts.active == 0


def test_places_are_given_in_turn_and_free_again_when_texts_are_cancelled(engine):
    shared = [ask(engine, b"a", ENDLESS, is_exact=False) for _ in range(8)]
    next_ones = [ask(engine, b"b", 10, is_exact=False) for _ in range(3)]
    until(lambda: engine.counts.active == 8 and engine.num_waiting == 3)
    next_ones[1].text.cancel()  # while it waits
    until(lambda: engine.num_waiting == 2)
    shared[3].text.cancel()
    assert len(next_ones[0].wait()) == len(next_ones[2].wait()) == 10
    assert not next_ones[1].pieces
    be_quiet(engine, *shared)


def test_texts_that_must_be_exact_wait_for_a_place_of_their_own(engine):
    """Where a text's bits depend on the width of its batch, it is made alone."""
    assert not engine.is_exact  # so small a model in float32
    wanted = sampled(engine.model, b"c", 30, seed=5, count=3)
    company = ask(engine, b"a", ENDLESS, is_exact=False)
    asked = [ask(engine, b"c", 30, seed=5, lane=lane) for lane in [0, 1, 2] * MOST_ALONE]
    assert [one.wait() for one in asked] == wanted * MOST_ALONE
    assert not company.has_ended
    be_quiet(engine, company)


def test_the_width_grows_and_shrinks_with_the_load(engine):
    first = ask(engine, b"a", ENDLESS, is_exact=False)
    until(lambda: engine.counts.width == 1 and engine.counts.active == 1)
    more = [ask(engine, b"b", ENDLESS, is_exact=False) for _ in range(3)]
    until(lambda: engine.counts.width == 8 and engine.counts.active == 4)
    for one in more:
        one.text.cancel()
    until(lambda: engine.counts.width == 1 and engine.counts.active == 1)
    be_quiet(engine, first)


def test_a_width_that_is_too_large_goes_though_texts_keep_coming(wide_engine):
    lasting = ask(wide_engine, b"a", ENDLESS, is_exact=False)
    crowd = [ask(wide_engine, b"b", ENDLESS, is_exact=False) for _ in range(9)]
    until(lambda: wide_engine.counts.width == 64)
    for one in crowd:
        one.text.cancel()
    for _ in range(20):  # one after another, each in a chunk of its own
        ask(wide_engine, b"c", 1, is_exact=False).wait()
    assert wide_engine.counts.width < 64
    be_quiet(wide_engine, lasting)


def test_a_text_that_takes_too_long_fails_with_its_reason(engine):
    others = [ask(engine, b"a", ENDLESS, is_exact=False) for _ in range(8)]
    waiting = ask(engine, b"b", 10, is_exact=False, seconds=0.05)
    assert waiting.wait() == b"" and "not finished within 0.05 seconds" in waiting.error
    be_quiet(engine, *others)
    active = ask(engine, b"c", ENDLESS, seconds=0.1)
    active.wait()
    assert "not finished within 0.1 seconds" in active.error and active.pieces[-1].is_late
    until(lambda: engine.counts.active == 0)
    never_read = ask(engine, b"d", 10, seconds=0.05, is_held_up=lambda: True)
    never_read.wait()
    assert never_read.pieces[-1].is_late


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_text_that_is_not_read_waits_outside_and_goes_on_as_if_it_had_not(engines, name):
    engine = engines(name)
    wanted = sampled(engine.model, b"slow", 400, seed=6)[0]
    unread = [True]
    slow = Asked(
        engine,
        b"slow",
        400,
        seed=6,
        is_held_up=lambda: bool(unread) and slow.text.num_drawn > 20,
    )
    engine.submit([slow.text])
    until(lambda: engine.num_waiting == 1 and slow.text.num_drawn)
    until(lambda: engine.counts.active == 0)
    drawn = slow.text.num_drawn
    quick = ask(engine, b"quick", 50, seed=1).wait()
    assert quick == sampled(engine.model, b"quick", 50, seed=1)[0]
    assert slow.text.num_drawn == drawn < 400
    unread.clear()
    assert slow.wait() == wanted
    # And one that nobody reads any more.
    gone = Asked(engine, b"gone", 10, is_held_up=lambda: True)
    engine.submit([gone.text])
    until(lambda: engine.num_waiting == 1)
    be_quiet(engine, gone)


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_ends_of_texts(engine, is_exact):
    whole = sampled(engine.model, b"words", 300, seed=9)[0]
    first = whole[:1]
    late = whole[250:256]
    assert whole.index(late) == 250
    for stops, wanted, finish in (
        ((first,), b"", STOP),
        ((late, b"no such text"), whole[:250], STOP),
        ((late[2:], late), whole[:250], STOP),
        ((), whole, LENGTH),
    ):
        asked = ask(engine, b"words", 300, seed=9, stops=stops, is_exact=is_exact)
        assert asked.wait() == wanted and asked.pieces[-1].finish == finish
    for of_prompt in (False, True):
        asked = ask(engine, b"words", 0, logits=True, of_prompt=of_prompt, is_exact=is_exact)
        assert asked.wait() == b"" and asked.pieces[-1].finish == LENGTH
        echoed = b"".join(piece.data for piece in asked.pieces if piece.is_prompt)
        assert echoed == (b"words" if of_prompt else b"")
    kept = b"a prompt that is known already when it is asked for without one more byte to make"
    for _ in range(2):
        assert ask(engine, kept, 0, is_exact=is_exact).wait() == b""


@pytest.mark.parametrize("where", ["advance", "place", "columns"])
def test_an_engine_that_fails_tells_everybody_and_hangs_for_nobody(new_engine, monkeypatch, where):
    engine = new_engine(MODELS["float32"]())
    active = [ask(engine, b"a", ENDLESS, is_exact=False) for _ in range(8)]
    waiting = [ask(engine, b"b", 10, is_exact=False) for _ in range(2)]
    until(lambda: engine.counts.active == 8 and engine.num_waiting == 2)

    def broken(*_):
        raise MemoryError("no memory is left on the device")

    said = []
    monkeypatch.setattr(engine_module.logging, "exception", said.append)
    monkeypatch.setattr(engine._programs, where, broken)
    late = ask(engine, b"c", 10)
    active[0].text.cancel()
    for one in (*active[1:], *waiting, late):
        one.wait()
        assert "the model has failed" in one.error and not one.pieces[-1].is_late
    assert engine.has_failed and said == ["the engine has failed"]
    assert not engine.submit([late.text])
    assert engine.counts.active == engine.num_waiting == 0
    engine.stop()
    engine.join()


def test_an_engine_that_stops_finishes_what_it_has_and_takes_no_more(new_engine):
    engine = new_engine(MODELS["float32"]())
    asked = [ask(engine, b"last words", 300, lane=lane) for lane in [0, 1, 2] * 4]
    engine.stop()
    assert not engine.submit([Asked(engine, b"too late", 5).text])
    assert [one.wait() for one in asked] == 4 * sampled(engine.model, b"last words", 300, count=3)
    engine.join()
    assert not engine._thread.is_alive()


def test_a_client_that_goes_while_its_text_is_put_aside_leaves_nothing_behind(engine):
    """Else the engine would be busy with it for good, and never end."""
    asked = ask(engine, b"some words", ENDLESS)

    def is_held_up():
        if asked.text.num_drawn > 50:
            asked.text.cancel()  # after it was looked at, and before it has left its column
            return True
        return False

    asked.text.is_held_up = is_held_up
    until(lambda: asked.text.is_cancelled)
    until(lambda: not engine._unfinished)


def test_a_text_keeps_no_more_than_its_own_symbols(wide_engine):
    asked = [ask(wide_engine, b"some words", 300, seed=lane) for lane in range(20)]
    until(lambda: all(one.text.draws_left == 0 for one in asked))
    for one in asked:
        kept = sum((part if part.base is None else part.base).nbytes for part in one.text._symbols)
        assert kept == 300


def test_the_first_bytes_of_a_stream_come_soon_also_if_others_waited_for_its_prompt():
    wish = Wish(np.zeros(200, np.uint8), Settings(), 0, 0, max_tokens=1000, streams=True)
    text = Sequence(wish, np.arange(2, dtype=np.uint8), lambda piece: None)
    text.is_awaited = True
    assert engine_module._soon(text) == 200  # then its state is kept
    text.num_read = 200
    assert engine_module._soon(text) == engine_module.FIRST_BYTES
