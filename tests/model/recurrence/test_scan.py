"""The scan with either cell and whatever it keeps, against references in float64."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import lstm_reference
import network_reference as reference
import numpy as np
import pytest
import recurrence_checks as checks
from models import float32, network_of
from processes import CHEAP

from charlstm.model.dropout import Dropped
from charlstm.model.network import next_symbol_nats
from charlstm.model.recurrence import Scan, scan

TESTS = Path(__file__).parents[2]
L, B, H, V, E = 2, 4, 12, 7, 5


def factors(rng, *shape):
    return 2.0 * rng.integers(0, 2, shape)


def total(loss, after):
    """The loss plus something of the carry after, whose gradient then counts as well."""
    return loss + 0.1 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(dict(after)))


def case_of(reads, length, connections):
    """Parameters and carry, symbols [T+1, B], masks, and what the reference finds with them."""
    rng = np.random.default_rng(length)
    embedding = E if reads == "floats" else 0
    params, carry = reference.random_params(
        1, num_layers=L, hidden=H, symbols=V, embedding=embedding, layer_norm=True
    )
    for layer in params["layers"].values():  # well conditioned: float32 keeps its digits
        layer["gain_hh"] *= 0.3
    window = rng.integers(0, V, (length + 1, B)).astype(np.uint8)
    masks = {"between": factors(rng, L - 1, length, B, H)}
    if embedding:  # dropped, an embedding's vectors are no rows of a table
        masks["input"] = factors(rng, length, B, E)

    def objective(params, carry):
        options = {"masks": masks | {"output": np.ones((length, B, H))}, "connections": connections}
        loss, (_, after) = reference.loss(params, carry, window[:-1], window[1:], **options)
        return total(loss, after), (loss, after)

    with jax.enable_x64(True):
        exact = jax.tree.map(jnp.asarray, (params, carry))
        found = jax.device_get(jax.grad(objective, argnums=(0, 1), has_aux=True)(*exact))
    return params, carry, window, masks, found


# Each window is read as symbols and as floats, with gates kept and with states kept.
@pytest.mark.parametrize(
    ("length", "connections", "reads", "keep"),
    [
        (1, "plain", "symbols", "gates"),
        (1, "plain", "floats", "state"),
        (9, "skip", "symbols", "state"),
        (9, "skip", "floats", "gates"),
        (7, "plain", "symbols", "state"),
        (7, "plain", "floats", "gates"),
        (10, "residual", "symbols", "gates"),
        (10, "residual", "floats", "state"),
    ],
)
def test_layer_norm_agrees_with_float64(monkeypatch, keep, reads, length, connections):
    """Loss, carry and every gradient.

    What is kept as states is made again in chunks: here one, three of 3 time steps, seven of a
    single one, and five of 2.
    """
    monkeypatch.setattr(scan, "LARGEST_CHUNK", 4)
    params, carry, window, masks, wanted = case_of(reads, length, connections)
    network = network_of(Scan(keep), layer_norm=True, connections=connections)
    dropped = Dropped(**float32(masks))

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def run(params, carry):
        outputs, after = network.outputs(params, carry, window[:-1], dropped)
        nats, _ = next_symbol_nats(network.logits(params, outputs), window[1:])
        loss = jnp.mean(nats)
        return total(loss, after), (loss, dict(after))

    checks.assert_close(jax.jit(run)(float32(params), float32(carry)), wanted)


@pytest.mark.parametrize("window", [37, 64])
def test_states_of_many_chunks_are_enough_for_the_gradient(window):
    """37 chunks of a time step, and two of 32."""
    case = lstm_reference.random_case(6, num_layers=2, window=window)
    checks.assert_agrees_with_float64(Scan("state"), case)
    checks.assert_agrees_with_scan(Scan("state"), case)


@pytest.mark.parametrize("layer_norm", [False, True], ids=["lstm", "layer norm"])
def test_bfloat16_is_rounded_alike_whatever_is_kept(layer_norm):
    """Far closer (2e-3) than bfloat16 is to float32 (2e-2)."""
    params, carry = reference.random_params(2, layer_norm=layer_norm)
    inputs, targets = np.random.default_rng(0).integers(0, 7, (2, 9, 4)).astype(np.uint8)
    gates, state = (
        checks.loss_and_gradients(
            network_of(Scan(keep), dtype=jnp.bfloat16, layer_norm=layer_norm),
            float32(params),
            float32(carry),
            inputs,
            targets,
            None,
            0.1,
        )
        for keep in ("gates", "state")
    )
    checks.assert_close(state, gates, relative=2e-3)


def test_streams_split_over_two_devices_give_the_same():
    script = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import network_reference as reference, numpy as np, recurrence_checks as checks
from models import network_of
from charlstm.model.recurrence import Scan

params, carry = reference.random_params(3, layer_norm=True)
inputs, targets = np.random.default_rng(0).integers(0, 7, (2, 9, 4)).astype(np.uint8)
masks = checks.random_masks(9, hidden_size=6)
for keep in "gates", "state":
    checks.assert_agrees_when_split(Scan(keep))
    network = network_of(Scan(keep), layer_norm=True)
    checks.assert_split_network_agrees(network, (params, carry, inputs, targets, masks))
"""
    environment = os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
