"""The ceiling of the speed, by hand."""

import dataclasses

import pytest

from charlstm.compilation.ceiling import ceiling, flops_per_byte
from charlstm.compilation.chips import CHIPS, chip_of_kind
from charlstm.compilation.counting import Collective
from charlstm.config import Config

CONFIG = Config().replace(
    {
        "model.num_layers": 3,
        "model.hidden_size": 1024,
        "data.num_streams": 1024,
        "data.window_length": 128,
    }
)
SLOW_LINKS = dataclasses.replace(CHIPS["h100"], link_bandwidth=1e9, network_bandwidth=5e8)


def of(chip, *, mesh_shape=(1, 1), exchanged=(), host=8):
    return ceiling(CONFIG, 256, "bfloat16", chip, mesh_shape, exchanged, host)


def test_large_batches_are_bound_by_products():
    found = of(CHIPS["h100"])
    # 3 layers of 8·1024² multiply-adds less the look-up's 4·1024², and the head's 1024·256.
    assert flops_per_byte(CONFIG, 256) == 6 * (3 * 8 * 1024**2 - 4 * 1024**2 + 1024 * 256)
    assert found.limit == "products"
    expected = 989e12 / flops_per_byte(CONFIG, 256)
    assert found.bytes_per_second == pytest.approx(expected)


def test_devices_that_share_the_streams_add_up():
    alone = of(CHIPS["v5e"]).bytes_per_second
    assert of(CHIPS["v5e"], mesh_shape=(4, 1)).bytes_per_second == pytest.approx(4 * alone)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-reduce", 1.5), ("all-gather", 0.75), ("reduce-scatter", 3), ("all-to-all", 0.75)],
)
def test_links_send_what_the_algorithm_of_a_ring_sends(kind, sent):
    exchanged = [Collective(kind, "data", 1, 10**9, False, 4)]
    found = of(SLOW_LINKS, mesh_shape=(4, 1), exchanged=exchanged)
    assert found.limit == "links"
    assert found.links == pytest.approx(sent)
    # Between hosts the network is slower.
    assert of(SLOW_LINKS, exchanged=exchanged, host=2).links == pytest.approx(2 * sent)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
    ],
)
def test_chips_are_known_by_the_names_that_jax_has_for_them(kind, name):
    assert chip_of_kind(kind).name == name


def test_an_unknown_chip_has_no_ceiling():
    assert chip_of_kind("cpu") is None
