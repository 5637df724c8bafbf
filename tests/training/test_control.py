"""What comes next is decided by a clock and by whoever may stop the run."""

from charlstm.training.control import Control, Decision, DispatchSize


def test_a_save_is_due_by_time_after_the_last_one():
    seconds = [0.0]
    control = Control(DispatchSize(5, 100), save_seconds=60, now=lambda: seconds[0])
    for now, due in (0, False), (59, False), (60, True), (75, True):
        seconds[0] = now
        assert control.next() == Decision(5, due, None)
    control.saved()
    seconds[0] = 134
    assert not control.next().save
    seconds[0] = 135
    assert control.next().save


def test_without_a_time_no_save_is_due():
    clock = iter(range(0, 10**6, 1000)).__next__
    control = Control(DispatchSize(5, 100), save_seconds=0, now=clock)
    assert not any(control.next().save for _ in range(20))


def test_a_request_to_stop_is_obeyed_from_the_next_decision_on():
    code = [None]
    control = Control(DispatchSize(0, 100), lambda: code[0])
    assert control.next().stop is None and not control.should_stop()
    code[0] = 75
    assert control.should_stop() and control.next().stop == 75
    code[0] = 130  # what was asked for first counts
    assert control.next().stop == 75
    code[0] = None  # nor is it taken back
    assert control.next().stop == 75


def test_nobody_to_ask_never_stops():
    control = Control(DispatchSize(0, 100))
    assert control.next().stop is None and not control.should_stop()


def test_dispatches_grow_to_half_a_second():
    size = DispatchSize(0, 100)
    counts = []
    for _ in range(10):
        counts.append(size.count())
        size.update(size.count(), size.count() * 0.01)
    assert counts[:6] == [1, 2, 4, 8, 16, 32] and counts[-1] == 50
    assert DispatchSize(7, 100).count() == 7 and DispatchSize(700, 100).count() == 100
