"""A window is cut into blocks that fit into a TPU's VMEM, as its compiler counts it."""

import jax.numpy as jnp
import pytest
from jax.experimental.pallas import tpu as pltpu

from charlstm.config import ModelConfig
from charlstm.errors import UserError
from charlstm.model.compute import Compute
from charlstm.model.network import Network
from charlstm.model.recurrence.pallas_grid import CORES, Blocks, core_of
from charlstm.runtime.targets import Target

V4, V5E, V5P, TPU7X = (Target("tpu", f"TPU{name}") for name in (" v4", " v5 lite", " v5", "7x"))

# What Mosaic of libtpu 0.0.42.1 (jax 0.10.2) says that the forward and the backward kernel need, in
# MiB, when the limit is too low; T=128, and with xla_msa_enable=false, so that XLA places none of
# their arguments in VMEM. By chip, hidden size, streams, the blocks, and the compute dtype.
MOSAIC = [
    ("v5e", 1024, 256, (1, 256), "bfloat16", (25.62, 26.00)),
    ("v5e", 1024, 256, (8, 256), "bfloat16", (102.62, 103.00)),
    ("v5e", 1024, 64, (1, 64), "bfloat16", (12.38, 12.43)),
    ("v5e", 512, 512, (8, 256), "bfloat16", (50.29, 50.55)),
    ("v5e", 256, 512, (8, 256), "bfloat16", (25.53, 24.66)),
    ("v5e", 1000, 100, (2, 48), "bfloat16", (13.77, 13.58)),
    ("v5e", 128, 16, (1, 16), "bfloat16", (0.24, 0.24)),
    ("v5e", 1024, 16, (1, 16), "float32", (18.09, 17.62)),
    ("v5e", 1024, 256, (2, 256), "float32", (65.96, 66.51)),
    ("v6e", 1024, 512, (4, 256), "bfloat16", (60.73, 61.16)),
    ("v6e", 2048, 64, (1, 64), "bfloat16", (41.75, 41.16)),
    ("v6e", 512, 64, (1, 64), "float32", (7.38, 7.41)),
    ("tpu7x", 1024, 64, (2, 32), "bfloat16", (11.77, 11.73)),
    ("v4", 1024, 64, (1, 64), "bfloat16", (12.68, 12.50)),
    ("v4", 1024, 64, (2, 32), "bfloat16", (12.99, 11.91)),
]


def choose(target, window, streams, hidden_size, dtype=jnp.bfloat16):
    return Blocks.choose(window, streams, hidden_size, Compute(jnp.dtype(dtype), target))


@pytest.mark.parametrize(("chip", "hidden_size", "streams", "blocks", "dtype", "needed"), MOSAIC)
def test_the_estimate_of_vmem_is_what_the_compiler_needs_and_little_more(
    chip, hidden_size, streams, blocks, dtype, needed
):
    estimate = Blocks(*blocks).vmem_bytes(hidden_size, dtype) / 2**20
    assert max(needed) <= estimate <= 1.15 * max(needed) + 1.6


def test_as_many_streams_share_a_block_as_fit_beside_the_weights():
    assert choose(V5E, 128, 256, 1024) == Blocks(steps=8, streams=256)
    assert choose(TPU7X, 128, 256, 1024) == Blocks(steps=2, streams=256)
    assert choose(V5E, 128, 256, 2048) == Blocks(steps=2, streams=256)
    assert choose(V5E, 128, 256, 3072) == Blocks(steps=1, streams=128)
    assert choose(Target("tpu", "TPU of tomorrow"), 128, 256, 1024) == Blocks(steps=1, streams=64)


def test_both_cores_of_a_device_get_streams():
    assert choose(V5P, 128, 256, 1024) == Blocks(steps=8, streams=128)
    assert choose(V5P, 128, 1024, 1024) == Blocks(steps=2, streams=256)
    assert choose(V4, 128, 64, 1024) == Blocks(steps=2, streams=32)


@pytest.mark.parametrize("streams", [1, 7, 16, 100, 127, 250, 300])
@pytest.mark.parametrize("target", [V4, V5E, V5P], ids=lambda target: target.chip)
def test_every_number_of_streams_is_cut_into_blocks_of_whole_tiles(target, streams):
    blocks = choose(target, 127, streams, 1024)
    assert blocks.steps == 1
    assert blocks.streams == streams or blocks.streams % 16 == 0
    assert blocks.vmem_bytes(1024, jnp.bfloat16) <= core_of(target).vmem_limit
    # No block is all beyond the last stream.
    assert blocks.streams * (-(-streams // blocks.streams) - 1) < streams


@pytest.mark.parametrize(
    ("kind", "chip"),
    [
        ("TPU v2", "v2"),
        ("TPU v3", "v3"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "7x"),
    ],
)
def test_the_figures_of_a_core_are_those_that_jax_has(kind, chip):
    core, version = CORES[kind], pltpu.ChipVersion(chip)
    found = pltpu.get_tpu_info_for_chip(version, core.per_device)
    assert core.vmem * 2**20 == found.vmem_capacity_bytes
    assert core.per_device == (2 if version.supports_megacore else 1)
    assert core.bfloat16 == found.is_matmul_supported(jnp.bfloat16, jnp.bfloat16)


@pytest.mark.parametrize(
    ("chip", "fields", "says"),
    [
        ("TPU v4", {"hidden_size": 2048}, "model.hidden_size=2048 in bfloat16 needs 36 MiB of the"),
        ("TPU v3", {"hidden_size": 128}, "cannot multiply bfloat16 on a TPU v3: set model.compute"),
    ],
)
def test_what_a_chip_cannot_take_is_refused_before_it_is_compiled(chip, fields, says):
    model = ModelConfig(recurrence="pallas_tpu", **fields)
    with pytest.raises(UserError) as refusal:
        Network.of(model, Target("tpu", chip))
    assert says in str(refusal.value) and "model.recurrence=scan" in str(refusal.value)
    Network.of(model, V5E)
