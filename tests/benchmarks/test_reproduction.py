"""What is said of a sampled text."""

from benchmarks.reproduction import loop_of


def test_a_text_that_goes_round_is_told_from_one_that_does_not() -> None:
    assert loop_of(b"ROMEO: the the the the the") == (6, 4)
    assert loop_of(b"x" * 30) == (0, 1)
    assert loop_of(b"never the same again and so on") is None
    assert loop_of(b"only twice: and so and so") is None
    assert loop_of(b"") is None


def test_the_shortest_period_is_named() -> None:
    start, period = loop_of(b"to be, " + b"ab" * 20)
    assert (start, period) == (7, 2)
