"""Texts side by side: the random numbers that they are drawn with."""

import jax
import numpy as np
import pytest

from charlstm.sampling.texts import _chances

SEEDS = np.array([0, 7, 2**31, 2**32 - 1, 7], np.uint32)
LANES = np.array([0, 5, 63, 1, 2**20], np.uint32)


@pytest.mark.parametrize("places", [[0, 1, 2], [500, 10**6, 2**31 - 1]])
def test_chances_are_the_numbers_of_jax_random(places):
    rows = np.repeat(np.array(places, np.int32)[:, None], len(SEEDS), axis=1)
    rows[:, 3] = rows[::-1, 3]  # each text may stand elsewhere
    found = jax.jit(_chances)(SEEDS, LANES, rows)
    assert found.dtype == np.float32

    def wanted(seed, lane, place):
        key = jax.random.fold_in(jax.random.key(int(seed)), int(place))
        return jax.random.uniform(key, int(lane) + 1)[lane]

    expected = [
        [wanted(*one) for one in zip(SEEDS, LANES, row, strict=True)] for row in rows.tolist()
    ]
    np.testing.assert_array_equal(np.asarray(found), np.array(expected, np.float32))
