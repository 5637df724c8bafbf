"""Layers whose hidden units are shared out among devices."""

import os
import subprocess
import sys
from pathlib import Path

from processes import CHEAP

TESTS = Path(__file__).parents[2]

CODE = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.numpy as jnp
import lstm_reference as reference
from models import float32, network_of
from recurrence_checks import assert_close, assert_reads_floats, loss_and_gradients, random_masks
from charlstm.model.recurrence import Scan, TensorParallel
from charlstm.runtime import meshes

def on(mesh, tree, axis):
    def put(leaf):
        spec = [None] * leaf.ndim
        if axis is not None:
            spec[axis] = "data"
        return jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(*spec)))
    return jax.tree.map(put, tree)

for data, model, steps in (2, 2, 9), (1, 4, 1), (2, 2, None):
    mesh = meshes.make_mesh(4, data, model)
    with jax.set_mesh(mesh):
        case = reference.random_case(21, num_layers=2)
        masks = None if steps is None else random_masks(steps, num_layers=2)
        loss, gradients, after = reference.loss_and_gradients(*case, masks)
        params, carry, inputs, targets = case
        arguments = (
            on(mesh, float32(params), None), on(mesh, float32(carry), 1),
            on(mesh, jnp.asarray(inputs), 1), on(mesh, jnp.asarray(targets), 1),
            None if masks is None else on(mesh, float32(masks), 2),
        )
        found = loss_and_gradients(network_of(TensorParallel()), *arguments)
        assert_close(found[0], loss)
        assert_close(found[1], after)
        assert_close(found[2], gradients)
        # In the low precision of accelerators it stays as near to the scan as rounding allows.
        scan, parallel = (
            network_of(recurrence, dtype=jnp.bfloat16) for recurrence in (Scan(), TensorParallel())
        )
        wanted = loss_and_gradients(scan, *arguments, 0.1)
        assert_close(loss_and_gradients(parallel, *arguments, 0.1), wanted, 2e-2)
        if steps is not None:
            assert_reads_floats(TensorParallel(), 2, put=lambda tree, axis: on(mesh, tree, axis))
    print("agrees", data, model, steps)
"""


def test_agrees_with_float64_however_it_is_split():
    """On four devices, with masks and without: loss, carry and every gradient."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["agrees 2 2 9", "agrees 1 4 1", "agrees 2 2 None"], (
        done.stderr
    )
