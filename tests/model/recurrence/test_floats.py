"""Every recurrence reads floats as well as symbols."""

import pytest
import recurrence_checks as checks

from charlstm.model import recurrence

# cudnn and split have their own conditions, and are tested with the rest of theirs.
NAMES = ["scan", "scan_columns", "scan_recompute", "wavefront/4", "pallas_tpu"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_vectors_of_an_embedding_reach_the_first_layer(name, num_layers):
    checks.assert_reads_floats(recurrence.get(name), num_layers)
