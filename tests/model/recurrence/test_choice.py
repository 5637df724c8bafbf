"""What `model.recurrence` stands for: `auto` by device, hidden size and streams."""

import jax
import pytest

from charlstm.config import ModelConfig
from charlstm.model import recurrence
from charlstm.training.program import recurrence_of


@pytest.mark.parametrize(
    ("hidden_size", "num_streams", "wanted"),
    [
        (128, 512, "scan"),
        (256, 32, "scan"),
        (256, 64, "scan_columns"),
        (512, 1, "scan_columns"),
        (1024, 64, "scan_columns"),
    ],
)
def test_auto_chooses_as_measured_on_a_cpu(hidden_size, num_streams, wanted):
    model = ModelConfig(hidden_size=hidden_size)
    assert recurrence_of(model, num_streams=num_streams) == wanted


def test_auto_takes_the_scan_where_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert recurrence.resolve("auto", 1024, 32, num_streams=256) == "scan"


def test_a_name_stands_for_itself_and_split_layers_for_split():
    model = ModelConfig(hidden_size=1024, recurrence="scan")
    assert recurrence_of(model, num_streams=64) == "scan"
    assert recurrence_of(model, model_devices=2, num_streams=64) == "split"
    assert recurrence_of(ModelConfig(residuals="state"), num_streams=64) == "scan_recompute"
