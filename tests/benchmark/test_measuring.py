"""How the time is shared out, and which figures are left out."""

import time

import pytest

from charlstm.benchmark import measuring
from charlstm.benchmark.fields import config_of
from charlstm.benchmark.measuring import Prepared, ProductRate, Task
from charlstm.benchmark.shapes import Shape
from charlstm.benchmark.windows import Windows
from charlstm.errors import UserError

SHAPE = Shape.parse("1x8-B4-T8")
CONFIGS = {SHAPE: config_of(SHAPE, {})}
TIMES = Windows([0.5])


def refuse():
    raise UserError("it does\nnot fit")


@pytest.fixture
def measured(monkeypatch):
    """Measures tasks that take no time, with so many seconds left."""
    monkeypatch.setattr(measuring.Windows, "of", lambda *given: TIMES)
    monkeypatch.setattr(measuring.jax, "clear_caches", lambda: None)
    monkeypatch.setattr(measuring, "_product_rate", lambda dtype: ProductRate(dtype, [1e9], None))

    def measure(tasks, seconds):
        monkeypatch.setattr(measuring, "_tasks", lambda *given: tasks)
        return measuring.measure(CONFIGS, time.monotonic() + seconds)

    return measure


def task(kind, name, prepare=lambda: Prepared(None, lambda times: {"rate": times.rate()})):
    return Task(kind, f"{kind} {name}", {"name": name}, prepare)


def test_when_the_time_is_up_one_task_of_each_kind_is_measured_and_the_others_are_named(measured):
    names = ("a", "b", "c")
    found = measured([task(kind, name) for name in names for kind in ("training", "sampling")], 0)
    assert [row["name"] for row in found["training"] + found["sampling"]] == ["a", "a"]
    assert found["not_reached"] == ["training b", "sampling b", "training c", "sampling c"]


def test_with_time_enough_everything_is_measured(measured):
    found = measured([task("training", "a"), task("training", "b")], 1e6)
    assert [row["rate"] for row in found["training"]] == [2.0, 2.0]
    assert found["not_reached"] == []


def test_a_task_that_fails_is_a_row_with_its_reason_and_the_next_is_measured(measured):
    found = measured([task("training", "a", refuse), task("training", "b")], 0)
    assert [row["status"] for row in found["training"]] == ["it does not fit", "ok"]


@pytest.mark.parametrize(("peaks", "shown"), [((7, 9), 9), ((9, 9), None), ((None, None), None)])
def test_a_peak_that_something_before_reached_is_not_shown(monkeypatch, peaks, shown):
    waiting = iter(peaks)
    monkeypatch.setattr(measuring.training, "peak_bytes", lambda device: next(waiting))
    prepared = measuring._prepare_training(SHAPE, CONFIGS[SHAPE], ProductRate("float32", [], None))
    figures = prepared.figures(TIMES)
    assert figures["device_peak_bytes"] == shown
    assert figures["share_of_product_rate"] is None
