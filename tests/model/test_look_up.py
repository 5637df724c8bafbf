"""The look-up of a table's rows by symbols, in the form that each target takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CUDA, TPU

from charlstm.model.look_up import look_up
from charlstm.runtime.targets import Target

TARGETS = [Target("cpu", "cpu"), CUDA, TPU]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.platform)
def test_every_target_looks_up_the_very_rows(target, dtype):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(7, 12)), dtype)
    symbols = jnp.asarray(rng.integers(0, 7, size=(5, 3)), jnp.uint8)
    rows = jax.jit(lambda table: look_up(target, table, symbols))(table)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, np.asarray(table)[symbols])


def test_a_gpu_looks_up_many_rows_in_bfloat16_by_a_product():
    def program(dtype, num_symbols):
        table, symbols = jnp.ones((num_symbols, 12), dtype), jnp.zeros((5, 3), jnp.uint8)
        return str(jax.make_jaxpr(lambda table: look_up(CUDA, table, symbols))(table))

    assert "gather" not in program(jnp.bfloat16, 7)
    # A product in float32 rounds to TF32; for a few rows the table need not be read whole.
    assert "gather" in program(jnp.float32, 7)
    assert "gather" in program(jnp.bfloat16, 256)
