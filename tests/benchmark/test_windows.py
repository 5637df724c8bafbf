"""Times of work in windows."""

import time

import pytest

from charlstm.benchmark.windows import WINDOWS, Windows


def test_a_rate_is_the_median_between_the_lowest_and_the_highest():
    windows = Windows([0.5, 0.1, 0.2])
    assert windows.rate(10.0) == pytest.approx(50)
    assert windows.rates(10.0) == pytest.approx((20, 100))


def test_what_times_are_compared_with_is_measured_after_each_window():
    done = []

    def work(count):
        done.append("work")
        time.sleep(1e-3 * count)

    def between():
        done.append("between")
        return float(len(done))

    windows = Windows.of(work, 4e-3, between)
    assert done[-2 * WINDOWS :] == ["work", "between"] * WINDOWS
    assert len(windows.unit_seconds) == WINDOWS
    assert windows.between == [len(done) - 2.0 * n for n in reversed(range(WINDOWS))]
