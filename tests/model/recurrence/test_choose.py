"""What `model.recurrence` stands for: `auto` by target, hidden size and streams."""

import pytest
from models import CUDA, TPU

from charlstm.config import ModelConfig
from charlstm.model import recurrence
from charlstm.model.recurrence import (
    Columns,
    Cudnn,
    PallasGpu,
    PallasTpu,
    Scan,
    TensorParallel,
    Wavefront,
)
from charlstm.runtime.targets import Target

CPU = Target("cpu", "cpu")


@pytest.mark.parametrize(
    ("hidden_size", "num_streams", "wanted"),
    [
        (128, 512, Scan()),
        (256, 32, Scan()),
        (256, 64, Columns()),
        (512, 1, Columns()),
        (1024, 64, Columns()),
    ],
)
def test_auto_chooses_as_measured_on_a_cpu(hidden_size, num_streams, wanted):
    model = ModelConfig(hidden_size=hidden_size)
    assert recurrence.choose(model, CPU, num_streams=num_streams) == wanted


@pytest.mark.parametrize("target", [CUDA, Target("rocm", "AMD Instinct MI300X"), TPU])
def test_auto_takes_the_scan_where_nothing_is_measured(target):
    model = ModelConfig(hidden_size=1024)
    assert recurrence.choose(model, target, num_streams=256) == Scan()


@pytest.mark.parametrize("target", [CPU, CUDA, TPU], ids=lambda target: target.platform)
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("scan", Scan()),
        ("scan_columns", Columns()),
        ("wavefront", Wavefront(7)),
        ("pallas_tpu", PallasTpu()),
        ("pallas_gpu", PallasGpu()),
        ("cudnn", Cudnn()),
        ("split", TensorParallel()),
    ],
)
def test_a_name_stands_for_itself_on_every_target(name, wanted, target):
    model = ModelConfig(hidden_size=1024, recurrence=name, wavefront_chunk=7)
    assert recurrence.choose(model, target, num_streams=64) == wanted


def test_layers_split_over_devices_are_run_tensor_parallel():
    model = ModelConfig(hidden_size=1024, recurrence="scan")
    assert recurrence.choose(model, CPU, num_streams=64) == Scan()
    assert recurrence.choose(model, CPU, model_devices=2, num_streams=64) == TensorParallel()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"residuals": "state"}, Scan("state")),
        ({"layer_norm": True}, Scan()),
        ({"layer_norm": True, "residuals": "state"}, Scan("state")),
    ],
)
def test_auto_takes_the_scan_for_what_only_the_scan_can_do(options, wanted):
    model = ModelConfig(hidden_size=1024, **options)
    assert recurrence.choose(model, CPU, num_streams=64) == wanted
