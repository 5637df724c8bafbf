"""The wavefront computes what the stack of scans computes."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import lstm_reference as reference
import pytest
import recurrence_checks as checks
from models import float32, network_of
from processes import CHEAP

from charlstm.model.recurrence import Scan, Wavefront

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("num_layers, chunk_size", [(3, 1), (3, 3), (3, 4), (2, 4), (3, 9), (1, 4)])
def test_loss_gradients_and_carry_agree_with_float64(num_layers, chunk_size):
    """A window of 9: single steps, an even division, a ragged one; what is left to the scan."""
    case = reference.random_case(1, num_layers=num_layers)
    checks.assert_agrees_with_float64(Wavefront(chunk_size), case)


@pytest.mark.parametrize("steps", [1, 9], ids=["locked", "standard"])
def test_dropout_masks_act_between_layers_as_in_the_reference(steps):
    case = reference.random_case(2, num_layers=3)
    checks.assert_agrees_with_float64(Wavefront(2), case, checks.random_masks(steps))


@pytest.mark.parametrize("chunk_size", [3, 4], ids="chunk={}".format)
def test_all_gradients_also_by_the_carry_equal_those_of_scan(chunk_size):
    case = reference.random_case(3, num_layers=3)
    checks.assert_agrees_with_scan(Wavefront(chunk_size), case, checks.random_masks(9))


def test_bfloat16_is_rounded_where_scan_rounds_it():
    """Far closer to scan in bfloat16 (2e-3) than bfloat16 is to float32 (2e-2)."""
    case = reference.random_case(4, num_layers=3)
    masks = checks.random_masks(9)
    checks.assert_agrees_with_scan(Wavefront(4), case, masks, jnp.bfloat16, relative=2e-3)


def test_a_single_layer_or_chunk_is_the_scan_itself():
    for num_layers, chunk_size in ((1, 3), (3, 9)):
        params, carry, _, _ = float32(reference.random_case(5, num_layers=num_layers))
        layers = [params["layers"][str(index)] for index in range(num_layers)]
        arguments = (layers, jnp.ones((9, 4), jnp.uint8), carry, None)
        wavefront, scan = (
            partial(network.recurrence, network)
            for network in (network_of(Wavefront(chunk_size)), network_of(Scan()))
        )
        assert str(jax.make_jaxpr(wavefront)(*arguments)) == str(jax.make_jaxpr(scan)(*arguments))


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import recurrence_checks as checks
from charlstm.model.recurrence import Wavefront
checks.assert_agrees_when_split(Wavefront(4))
"""
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
