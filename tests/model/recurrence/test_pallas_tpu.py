"""The TPU kernels, interpreted, compute what the scan computes; for a TPU they lower."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import lstm_reference as reference
import pytest
import recurrence_checks as checks
from models import TPU, network_of
from processes import CHEAP

from charlstm.errors import UserError
from charlstm.model.recurrence import PallasTpu
from charlstm.model.recurrence.pallas_grid import Blocks
from charlstm.runtime.targets import Target

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("window", [1, 9], ids="window={}".format)
def test_loss_gradients_and_carry_agree_with_float64(num_layers, window):
    case = reference.random_case(1, num_layers=num_layers, window=window)
    checks.assert_agrees_with_float64(PallasTpu(), case)


@pytest.mark.parametrize("steps", [1, 9], ids=["locked", "standard"])
def test_dropout_masks_act_between_layers_as_in_the_reference(steps):
    case = reference.random_case(2, num_layers=3)
    checks.assert_agrees_with_float64(PallasTpu(), case, checks.random_masks(steps))


def test_all_gradients_also_by_the_carry_equal_those_of_scan():
    checks.assert_agrees_with_scan(PallasTpu(), reference.random_case(3))


@pytest.mark.parametrize("steps", [1, 3])
def test_several_blocks_of_streams_and_time_compute_the_same(monkeypatch, steps):
    asked = []

    def choose(window, streams, *_):
        asked.append((window, streams))
        return Blocks(steps, streams // 2)

    monkeypatch.setattr(Blocks, "choose", staticmethod(choose))
    # A target of its own, so that no jitted function is found from another test.
    target = Target("cpu", f"blocks of {steps} time steps")
    checks.assert_agrees_with_scan(PallasTpu(), reference.random_case(3), target=target)
    assert set(asked) == {(9, 4)}


def test_bfloat16_is_rounded_where_scan_rounds_it():
    """Far closer to scan in bfloat16 (2e-3) than bfloat16 is to float32 (2e-2)."""
    case = reference.random_case(4)
    checks.assert_agrees_with_scan(PallasTpu(), case, dtype=jnp.bfloat16, relative=2e-3)


def gradient_of_a_window(hidden_size, streams, window):
    """Abstract arguments of a 3-layer bfloat16 stack, and its gradient compiled for a TPU."""
    shape = jax.ShapeDtypeStruct
    network = network_of(PallasTpu(), dtype=jnp.bfloat16, target=TPU)
    layer = {
        "weight_ih": shape((hidden_size, 4 * hidden_size), jnp.float32),
        "weight_hh": shape((hidden_size, 4 * hidden_size), jnp.float32),
        "bias": shape((4 * hidden_size,), jnp.float32),
    }
    carry = {name: shape((3, streams, hidden_size), jnp.float32) for name in ("h", "c")}

    def loss(layers, carry, symbols):
        outputs, after = network.recurrence(network, layers, symbols, carry, None)
        return jnp.sum(outputs.astype(jnp.float32)) + jnp.sum(after["h"] + after["c"])

    symbols = shape((window, streams), jnp.uint8)
    return jax.jit(jax.grad(loss, argnums=(0, 1))), ([layer] * 3, carry, symbols)


def test_forward_and_backward_kernels_lower_for_a_tpu():
    gradient, arguments = gradient_of_a_window(hidden_size=1024, streams=64, window=128)
    lowered = gradient.trace(*arguments).lower(lowering_platforms=("tpu",))
    assert lowered.as_text().count("stablehlo.custom_call @tpu_custom_call") == 6


@pytest.mark.parametrize("hidden_size", [2048, 1000])
def test_sizes_that_the_kernels_cannot_take_are_refused(hidden_size):
    gradient, arguments = gradient_of_a_window(hidden_size, streams=64, window=8)
    with pytest.raises(UserError, match=r"model.hidden_size=.*model.recurrence=scan") as refusal:
        gradient.trace(*arguments)
    assert str(hidden_size) in str(refusal.value)


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from charlstm.model.recurrence import PallasTpu
checks.assert_agrees_when_split(PallasTpu())
"""
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
