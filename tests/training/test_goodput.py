"""Every second of a run is counted once, under the cause that it was lost to or as training."""

import pytest

from charlstm.training.goodput import CAUSES, Goodput


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds

    def spend(self, seconds):
        self.seconds += seconds


def test_goodput_counts_every_second_once():
    clock = Clock(100.0)
    goodput = Goodput(began=90.0, now=clock)
    with goodput.lost_to("compile"):
        clock.spend(5)
    clock.spend(1)
    goodput.started()  # 10 + 1 seconds, less those of the compilation
    clock.spend(60)
    with goodput.lost_to("evaluation"):
        clock.spend(2)
        with goodput.lost_to("save"):  # a part of the evaluation, not counted twice
            clock.spend(2)
    assert goodput.to_json() == {"total": 80.0, **dict.fromkeys(CAUSES, 0.0)} | {
        "compile": 5.0,
        "start": 11.0,
        "evaluation": 4.0,
    }
    assert goodput.metrics()["goodput"] == pytest.approx(60 / 80)
    waited = [5.0]
    goodput.count_input(lambda: waited[0])
    waited[0] += 4
    assert goodput.to_json()["input"] == 4.0
    waited[0] -= 4
    later = Goodput(began=clock(), now=clock)
    later.resume_from(goodput.to_json())
    later.started()
    clock.spend(20)
    assert later.metrics()["goodput"] == pytest.approx(80 / 100)
    assert "80.0% of 100 s" in later.summary()


def test_a_cause_of_a_users_own_is_counted_like_the_others_and_over_restarts():
    clock = Clock()
    goodput = Goodput(now=clock)
    goodput.started()
    clock.spend(6)
    with goodput.lost_to("ShowNeighbours"):
        clock.spend(3)
    with goodput.lost_to("ShowNeighbours"):
        clock.spend(1)
    assert goodput.metrics()["lost_seconds"]["ShowNeighbours"] == 4.0
    assert goodput.metrics()["goodput"] == pytest.approx(6 / 10)
    later = Goodput(now=clock)
    later.resume_from(goodput.to_json())
    later.started()
    clock.spend(8)
    with later.lost_to("ShowNeighbours"):
        clock.spend(2)
    found = later.metrics()
    assert found["lost_seconds"] == dict.fromkeys(CAUSES, 0.0) | {"ShowNeighbours": 6.0}
    assert found["goodput"] == pytest.approx(14 / 20)
    assert "ShowNeighbours 30.0%" in later.summary()


def test_time_inside_a_cause_is_counted_though_it_ends_with_an_error():
    clock = Clock()
    goodput = Goodput(now=clock)
    with pytest.raises(ValueError), goodput.lost_to("evaluation"):
        clock.spend(3)
        raise ValueError
    clock.spend(1)
    with goodput.lost_to("save"):
        clock.spend(2)
    found = goodput.to_json()
    assert (found["evaluation"], found["save"], found["total"]) == (3.0, 2.0, 6.0)
