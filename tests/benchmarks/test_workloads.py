"""The text in the forms that comparisons need."""

import numpy as np

from benchmarks.workloads import symbols_of
from charlstm.benchmark.shapes import Shape


def test_symbols_of_a_small_alphabet_are_all_below_its_size():
    symbols = symbols_of(Shape(1, 8, 1, 1, 84))
    assert symbols.dtype == np.uint8
    assert symbols.max() == 83
