"""Shapes, their cost, and the text."""

import numpy as np
import pytest

from charlstm.benchmark.shapes import Shape, make_text, text_of


def test_training_flops_agree_with_a_count_by_hand():
    # Two layers of 3 units, 5 symbols. A byte's multiply-adds: the first layer's h·W_hh is 3 × 12
    # (its input is a look-up), the second's x·W_ih and h·W_hh 3 × 12 each, the head 3 × 5.
    by_hand = 36 + (36 + 36) + 15
    # Forward, backward to the inputs, backward to the weights; a multiply and an add each.
    assert Shape(2, 3, 1, 1, 5).training_flops_per_byte == by_hand * 3 * 2


def test_the_large_model_costs_127_million_operations_a_byte():
    assert Shape(3, 1024, 64, 32).training_flops_per_byte == pytest.approx(127e6, rel=5e-3)


def test_drawing_a_symbol_reads_every_weight_but_other_rows_of_the_table():
    shape = Shape(2, 3, 1, 1, 5)
    whole = (5 * 12 + 3 * 12 + 12) + (3 * 12 + 3 * 12 + 12) + (3 * 5 + 5)
    assert shape.weights_per_step == whole - 4 * 12


@pytest.mark.parametrize("text", ["3x512-B64-T32", "3x1024-B64-T32-V84"])
def test_a_shape_is_read_as_it_is_written(text):
    assert str(Shape.parse(text)) == text


@pytest.mark.parametrize("text", ["", "3x512", "3x512-B64", "x-B-T", "0x8-B4-T8", "1x8-B0-T8"])
def test_a_shape_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="3x512-B64-T64"):
        Shape.parse(text)


def test_a_shape_with_more_symbols_than_bytes_is_refused():
    with pytest.raises(ValueError, match="256 bytes"):
        Shape.parse("1x8-B4-T8-V257")


def test_the_text_is_the_same_every_time_and_has_its_distinct_bytes():
    text = make_text(10_000)
    np.testing.assert_array_equal(text, make_text(10_000))
    assert len(np.unique(text)) == 84


@pytest.mark.parametrize("symbols", [1, 84, 255])
def test_the_text_of_a_shape_has_as_many_distinct_bytes_as_the_shape_has_symbols(symbols):
    assert len(np.unique(text_of(Shape(1, 8, 4, 8, symbols)))) == symbols
