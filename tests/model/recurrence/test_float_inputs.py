"""Every recurrence reads floats as well as symbols."""

import pytest
import recurrence_checks as checks

from charlstm.model.recurrence import Columns, PallasTpu, Scan, Wavefront

# cudnn and tensor_parallel have their own conditions, and are tested with the rest of theirs.
RECURRENCES = [Scan(), Columns(), Scan("state"), Wavefront(4), PallasTpu(interpret=True)]


@pytest.mark.parametrize("recurrence", RECURRENCES, ids=str)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_vectors_of_an_embedding_reach_the_first_layer(recurrence, num_layers):
    checks.assert_reads_floats(recurrence, num_layers)
