"""What every recurrence must hold to: the float64 reference, the scan, and several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np

from charlstm import distributed
from charlstm.model import language_model
from charlstm.model.recurrence.scan import scan_stack

RELATIVE = 1e-5


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


@partial(jax.jit, static_argnames=("run", "compute_dtype"))
def loss_and_gradients(
    run, params, carry, inputs, targets, masks=None, compute_dtype=jnp.float32, carry_weight=0.0
):
    """The loss, the carry after, and the gradients by the parameters and by the carry before.

    The gradients are those of the loss plus `carry_weight` times the sum of the carry after, so
    that gradients through the last state count as well.
    """

    def objective(params, carry):
        layers = language_model.layers_of(params)
        outputs, after = run(layers, inputs, carry, masks, compute_dtype)
        logits = jnp.einsum("tbh,hv->tbv", outputs.astype(jnp.float32), params["head"]["kernel"])
        logits = logits + params["head"]["bias"]
        loss = jnp.mean(language_model.next_symbol_nats(logits, targets)[0])
        total = loss + carry_weight * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(after))
        return total, (loss, dict(after))

    gradients, (loss, after) = jax.grad(objective, argnums=(0, 1), has_aux=True)(params, carry)
    return loss, after, *gradients


def assert_close(found, wanted, relative=RELATIVE):
    """Every array within `relative` of the one wanted, by its norm."""

    def check(f, w):
        f, w = np.asarray(f, np.float64), np.asarray(w, np.float64)
        assert np.linalg.norm(f - w) <= relative * np.linalg.norm(w)

    jax.tree.map(check, found, wanted)


def random_masks(steps, num_layers=3, streams=4, hidden_size=12):
    """Dropout masks [L-1, steps, B, H] of rate 1/2, float64."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (num_layers - 1, steps, streams, hidden_size)) * 2.0


def assert_agrees_with_float64(run, case, masks=None):
    loss, gradients, after = reference.loss_and_gradients(*case, masks)
    params, carry, inputs, targets = case
    masks = None if masks is None else float32(masks)
    found = loss_and_gradients(run, float32(params), float32(carry), inputs, targets, masks)
    assert_close(found[0], loss)
    assert_close(found[1], after)
    assert_close(found[2], gradients)


def assert_agrees_with_scan(run, case, masks=None, compute_dtype=jnp.float32, relative=RELATIVE):
    params, carry, inputs, targets = case
    masks = None if masks is None else float32(masks)
    arguments = (float32(params), float32(carry), inputs, targets, masks, compute_dtype, 0.1)
    wanted = loss_and_gradients(scan_stack, *arguments)
    assert_close(loss_and_gradients(run, *arguments), wanted, relative)


def assert_agrees_when_split(run, num_devices=2, steps=9):
    """Streams split over the devices of a mesh give what one device gives.

    Drops values with masks for `steps` time steps, see `random_masks`, or none.
    """
    params, carry, inputs, targets = reference.random_case(21, num_layers=3)
    params, carry = float32(params), float32(carry)
    masks = None if steps is None else float32(random_masks(steps))
    whole = loss_and_gradients(run, params, carry, inputs, targets, masks)
    mesh = distributed.make_mesh(4)
    assert mesh.size == num_devices
    with jax.set_mesh(mesh):

        def split(array, axis):
            spec = [None] * array.ndim
            spec[axis] = distributed.DATA_AXIS
            return jax.device_put(array, jax.NamedSharding(mesh, jax.P(*spec)))

        found = loss_and_gradients(
            run,
            jax.device_put(params, jax.NamedSharding(mesh, jax.P())),
            {name: split(state, 1) for name, state in carry.items()},
            split(inputs, 1),
            split(targets, 1),
            None if masks is None else split(masks, 2),
        )
        assert jax.typeof(found[1]["h"]).sharding.spec[1] == distributed.DATA_AXIS
        assert_close(found, whole)
