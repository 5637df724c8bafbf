"""What comes next is decided by clock and signal; goodput by clock alone."""

import pytest

from charlstm.training.conductor import Conductor, Order, Pace
from charlstm.training.goodput import CAUSES, Goodput


class Watch:
    code = None


def test_a_save_is_due_by_time_after_the_last_one():
    seconds = [0.0]
    conductor = Conductor(Pace(5, 100), save_seconds=60, now=lambda: seconds[0])
    for now, due in (0, False), (59, False), (60, True), (75, True):
        seconds[0] = now
        assert conductor.next() == Order(5, due, None)
    conductor.saved()
    seconds[0] = 134
    assert not conductor.next().save
    seconds[0] = 135
    assert conductor.next().save


def test_without_a_time_no_save_is_due():
    conductor = Conductor(Pace(5, 100), save_seconds=0, now=iter(range(0, 10**6, 1000)).__next__)
    assert not any(conductor.next().save for _ in range(20))


def test_a_signal_is_obeyed_from_the_next_order_on():
    watch = Watch()
    conductor = Conductor(Pace(0, 100), watch)
    assert conductor.next().leave is None and not conductor.leaving()
    watch.code = 75
    assert conductor.leaving() and conductor.next().leave == 75
    watch.code = 130  # what was asked for first counts
    assert conductor.next().leave == 75


def test_dispatches_grow_to_half_a_second():
    pace = Pace(0, 100)
    counts = []
    for _ in range(10):
        counts.append(pace.count())
        pace.took(pace.count(), pace.count() * 0.01)
    assert counts[:6] == [1, 2, 4, 8, 16, 32] and counts[-1] == 50
    assert Pace(7, 100).count() == 7 and Pace(700, 100).count() == 100


def test_goodput_counts_every_second_once():
    now = [100.0]

    def spend(seconds):
        now[0] += seconds

    goodput = Goodput(began=90.0, now=lambda: now[0])
    with goodput.lost_to("compile"):
        spend(5)
    spend(1)
    goodput.started()  # 10 + 1 seconds, less those of the compilation
    spend(60)
    with goodput.lost_to("evaluation"):
        spend(2)
        with goodput.lost_to("save"):  # a part of the evaluation, not counted twice
            spend(2)
    assert goodput.to_json() == {"total": 80.0, **dict.fromkeys(CAUSES, 0.0)} | {
        "compile": 5.0,
        "start": 11.0,
        "evaluation": 4.0,
    }
    assert goodput.metrics()["goodput"] == pytest.approx(60 / 80)
    waited = [5.0]
    goodput.counts_input_by(lambda: waited[0])
    waited[0] += 4
    assert goodput.to_json()["input"] == 4.0
    waited[0] -= 4
    later = Goodput(began=now[0], now=lambda: now[0])
    later.goes_on_from(goodput.to_json())
    later.started()
    spend(20)
    assert later.metrics()["goodput"] == pytest.approx(80 / 100)
    assert "80.0% of 100 s" in later.summary()
