"""Streams as columns compute what the stack of scans computes, also in bfloat16."""

import jax.numpy as jnp
import lstm_reference as reference
import pytest
import recurrence_checks as checks

from charlstm.model.recurrence import Columns


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_bfloat16_is_rounded_about_where_scan_rounds_it(num_layers, window):
    """A window of one time step, where XLA has no product of bfloat16 for columns, included."""
    case = reference.random_case(7, num_layers=num_layers, window=window, hidden_size=16)
    checks.assert_agrees_with_scan(Columns(), case, dtype=jnp.bfloat16, relative=2e-2)
