"""Competitors run interleaved, and one that cannot is named with its reason."""

import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.interleaved import Entry, Refusal, run_interleaved, start

HERE = {"PYTHONPATH": str(Path(__file__).parent)}


def entry(kind, count=0, **more):
    return Entry(
        kind, "competitors_for_tests", {"kind": kind}, environment=HERE, count=count, **more
    )


def test_competitors_run_one_after_the_other():
    outcomes = run_interleaved([entry("a", 3), entry("b", 3), entry("c", 3)], 4, 0.0)
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3
    ends = [(values["at"], number) for number, o in enumerate(outcomes) for values in o.values]
    assert [number for _, number in sorted(ends)] == [0, 1, 2] * 4
    assert all(len(outcome.seconds) == 4 for outcome in outcomes)


def test_a_run_lasts_about_as_long_as_asked_for():
    (outcome,) = run_interleaved([entry("sleeper")], 2, 0.2)
    assert outcome.count > 50  # of about 1 ms each
    assert outcome.values[0]["count"] == outcome.count
    assert min(outcome.seconds) > 0.1
    assert outcome.rate(10.0) == pytest.approx(10 * outcome.rate())
    lowest, highest = outcome.rates()
    assert lowest <= outcome.rate() <= highest


def test_those_that_cannot_are_named_and_the_others_go_on():
    kinds = ["absent", "failing", "dying", "giving up", "able"]
    outcomes = run_interleaved([entry(kind, 1) for kind in kinds], 6, 0.0)
    by_name = {outcome.entry.name: outcome for outcome in outcomes}
    assert by_name["absent"].status == "not installed (a_library_that_nobody_has)"
    assert by_name["failing"].status == "failed: ValueError: bad luck"
    assert by_name["dying"].status.startswith("failed: its process ended with code 3")
    assert by_name["giving up"].status == "failed: RuntimeError: tired"
    assert by_name["able"].ok
    assert len(by_name["able"].seconds) == 6


def test_an_idle_competitor_leaves_the_processor_to_the_others():
    idle, _ = run_interleaved([entry("idle", 1), entry("busy", 200)], 3, 0.0)
    assert idle.idle_cpu_share < 0.5


def test_competitors_with_names_share_a_process_and_one_that_fails_does_not_end_it():
    first, second, failing, absent = (entry(kind) for kind in ("a", "b", "failing", "absent"))
    with start(first) as child:
        for each in (first, second, failing, absent):
            child.prepare(each, each.name)
        assert child.read(60)["info"] and child.read(60)["info"]
        for reason in ("failed: ValueError: bad luck", "not installed"):
            with pytest.raises(Refusal, match=reason):
                child.read(60)
        assert child.run(3, name="a")["values"]["count"] == 3
        assert child.run(4, name="b")["values"]["count"] == 4
        child.send({"forget": True})
        assert child.read(60) == {}
        with pytest.raises(Refusal, match="KeyError"):
            child.run(1, name="a")
        assert not child.has_ended


def test_no_process_is_left_behind():
    """Neither a running one nor one that nobody has waited for."""
    here = psutil.Process()
    before = here.children(recursive=True)  # of other tests, such as a browser
    (outcome,) = run_interleaved([entry("a", 1, python=sys.executable)], 1, 0.0)
    assert outcome.ok
    assert {child.pid for child in here.children(recursive=True)} <= {c.pid for c in before}
