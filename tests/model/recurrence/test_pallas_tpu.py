"""The TPU kernels, interpreted, compute what the scan computes; for a TPU they lower."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import lstm_reference as reference
import pytest
import recurrence_checks as checks
from models import TPU, network_of
from processes import CHEAP

from charlstm.compilation.compiling import Machine
from charlstm.model.recurrence import PallasTpu
from charlstm.model.recurrence.pallas_grid import Blocks
from charlstm.runtime.targets import Target

TESTS = Path(__file__).parents[2]
INTERPRETED = PallasTpu(interpret=True)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("window", [1, 9], ids="window={}".format)
def test_loss_gradients_and_carry_agree_with_float64(num_layers, window):
    case = reference.random_case(1, num_layers=num_layers, window=window)
    checks.assert_agrees_with_float64(INTERPRETED, case)


@pytest.mark.parametrize("steps", [1, 9], ids=["locked", "standard"])
def test_dropout_masks_act_between_layers_as_in_the_reference(steps):
    case = reference.random_case(2, num_layers=3)
    checks.assert_agrees_with_float64(INTERPRETED, case, checks.random_masks(steps))


def test_all_gradients_also_by_the_carry_equal_those_of_scan():
    checks.assert_agrees_with_scan(INTERPRETED, reference.random_case(3))


@pytest.mark.parametrize("blocks", [Blocks(1, 2), Blocks(3, 2), Blocks(3, 3)], ids=str)
def test_several_blocks_of_streams_and_time_compute_the_same(monkeypatch, blocks):
    """Also where the last block reaches beyond the last stream."""
    asked = []

    def choose(window, streams, *_):
        asked.append((window, streams))
        return blocks

    monkeypatch.setattr(Blocks, "choose", staticmethod(choose))
    # A target of its own, so that no jitted function is found from another test.
    target = Target("cpu", str(blocks))
    checks.assert_agrees_with_scan(INTERPRETED, reference.random_case(3), target=target)
    assert set(asked) == {(9, 4)}


def test_bfloat16_is_rounded_where_scan_rounds_it():
    """Far closer to scan in bfloat16 (2e-3) than bfloat16 is to float32 (2e-2)."""
    case = reference.random_case(4)
    checks.assert_agrees_with_scan(INTERPRETED, case, dtype=jnp.bfloat16, relative=2e-3)


def lowered_gradient(target, num_layers, hidden_size, streams, window, dtype, sharding=None):
    """The gradient of a window by layers and carry, lowered for a TPU."""

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    network = network_of(PallasTpu(), dtype=dtype, target=target)
    layer = {
        "weight_ih": shape(hidden_size, 4 * hidden_size),
        "weight_hh": shape(hidden_size, 4 * hidden_size),
        "bias": shape(4 * hidden_size),
    }
    carry = {name: shape(num_layers, streams, hidden_size) for name in ("h", "c")}

    def loss(layers, carry, symbols):
        outputs, after = network.recurrence(network, layers, symbols, carry, None)
        return jnp.sum(outputs.astype(jnp.float32)) + jnp.sum(after["h"] + after["c"])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    arguments = [layer] * num_layers, carry, shape(window, streams, dtype=jnp.uint8)
    return gradient.trace(*arguments).lower(lowering_platforms=("tpu",))


def test_forward_and_backward_kernels_lower_for_a_tpu():
    lowered = lowered_gradient(TPU, 3, 1024, 64, 128, jnp.bfloat16)
    assert lowered.as_text().count("stablehlo.custom_call @tpu_custom_call") == 6


@pytest.mark.tpu_compile
@pytest.mark.skipif(not find_spec("libtpu"), reason="libtpu is not installed: see compile-tpu")
@pytest.mark.parametrize(
    ("topology", "hidden_size", "streams", "window", "dtype"),
    [
        ("v5e:1x1", 1024, 256, 128, jnp.bfloat16),
        ("v5e:1x1", 200, 100, 9, jnp.float32),
        ("v4:2x2x1", 1024, 100, 128, jnp.bfloat16),
        ("v4:2x2x1", 512, 300, 8, jnp.float32),
        ("v5p:2x2x1", 256, 300, 128, jnp.bfloat16),
        ("v6e:1x1", 384, 17, 127, jnp.bfloat16),
        ("tpu7x:2x2x1", 512, 256, 16, jnp.bfloat16),
    ],
)
def test_the_compiler_takes_the_blocks(topology, hidden_size, streams, window, dtype):
    device = Machine.named(topology).devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    sizes = hidden_size, streams, window
    lowered_gradient(Target.of(device), 1, *sizes, dtype, sharding).compile()


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from charlstm.model.recurrence import PallasTpu
checks.assert_agrees_when_split(PallasTpu(interpret=True))
"""
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
