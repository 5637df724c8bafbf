"""The dtype of the products that `model.compute_dtype=auto` stands for."""

import pytest
from models import CUDA, TPU

from charlstm.config import ModelConfig
from charlstm.model.compute import Compute
from charlstm.runtime.targets import Target

AMX = Target("cpu", "cpu", has_amx=True)
NO_AMX = Target("cpu", "cpu")


def dtype(target, **fields):
    return Compute.of(ModelConfig(**fields), target).dtype.name


@pytest.mark.parametrize("hidden_size", [16, 128, 1024])
def test_accelerators_multiply_bfloat16(hidden_size):
    for target in (CUDA, TPU, Target("rocm", "AMD Instinct MI300X")):
        assert dtype(target, hidden_size=hidden_size) == "bfloat16"


def test_a_cpu_multiplies_bfloat16_where_it_has_tiles_and_layers_are_wide():
    assert dtype(AMX, hidden_size=127) == "float32"
    assert dtype(AMX, hidden_size=128) == "bfloat16"
    assert dtype(AMX, hidden_size=1024) == "bfloat16"


def test_any_other_cpu_multiplies_float32():
    assert dtype(NO_AMX, hidden_size=16) == dtype(NO_AMX, hidden_size=1024) == "float32"


@pytest.mark.parametrize("target", [AMX, NO_AMX, CUDA])
@pytest.mark.parametrize("named", ["float32", "bfloat16"])
def test_a_named_dtype_is_taken_anywhere(target, named):
    for hidden_size in (16, 1024):
        assert dtype(target, hidden_size=hidden_size, compute_dtype=named) == named
