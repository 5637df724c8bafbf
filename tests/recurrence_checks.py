"""What every recurrence must hold to: the float64 reference, the scan, and several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
from models import float32, network_of

from charlstm.model.look_up import look_up
from charlstm.model.network import next_symbol_nats
from charlstm.model.parameters import layers_of
from charlstm.model.recurrence import Scan
from charlstm.runtime import meshes

RELATIVE = 1e-5


@partial(jax.jit, static_argnames="network")
def loss_and_gradients(network, params, carry, inputs, targets, masks=None, carry_weight=0.0):
    """The loss, the carry after, and the gradients by the parameters and by the carry before.

    The gradients are those of the loss plus `carry_weight` times the sum of the carry after, so
    that gradients through the last state count as well.
    """
    masks = None if masks is None else masks.astype(network.compute.dtype)

    def objective(params, carry):
        outputs, after = network.recurrence(network, layers_of(params), inputs, carry, masks)
        logits = jnp.einsum("tbh,hv->tbv", outputs.astype(jnp.float32), params["head"]["kernel"])
        logits = logits + params["head"]["bias"]
        loss = jnp.mean(next_symbol_nats(logits, targets)[0])
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


def assert_agrees_with_float64(recurrence, case, masks=None, target=None):
    loss, gradients, after = reference.loss_and_gradients(*case, masks)
    params, carry, inputs, targets = case
    masks = None if masks is None else float32(masks)
    network = network_of(recurrence, target=target)
    found = loss_and_gradients(network, float32(params), float32(carry), inputs, targets, masks)
    assert_close(found[0], loss)
    assert_close(found[1], after)
    assert_close(found[2], gradients)


def assert_agrees_with_scan(
    recurrence, case, masks=None, dtype=jnp.float32, relative=RELATIVE, target=None
):
    params, carry, inputs, targets = case
    masks = None if masks is None else float32(masks)
    arguments = (float32(params), float32(carry), inputs, targets, masks, 0.1)
    scan, network = (network_of(r, dtype=dtype, target=target) for r in (Scan(), recurrence))
    wanted = loss_and_gradients(scan, *arguments)
    assert_close(loss_and_gradients(network, *arguments), wanted, relative)


@partial(jax.jit, static_argnames="network")
def _of_embedding(network, embedding, params, carry, inputs, targets, masks):
    def objective(embedding, params):
        floats = look_up(network.compute.target, embedding, inputs)
        outputs, after = network.recurrence(network, layers_of(params), floats, carry, masks)
        logits = jnp.einsum("tbh,hv->tbv", outputs, params["head"]["kernel"])
        logits = logits + params["head"]["bias"]
        return jnp.mean(next_symbol_nats(logits, targets)[0]), dict(after)

    return jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(embedding, params)


def assert_reads_floats(
    recurrence, num_layers=3, with_masks=True, put=lambda tree, axis: tree, target=None
):
    """A first layer that reads vectors, here of an embedding narrower than the alphabet.

    The reference has a one-hot first layer with the product of embedding and weight_ih.
    """
    params, *rest = reference.random_case(31, num_layers=num_layers)
    first = params["layers"]["0"]
    rng = np.random.default_rng(1)
    embedding, weight = rng.normal(size=(11, 5)), 0.3 * rng.normal(size=(5, 48))
    masks = random_masks(1, num_layers=num_layers) if with_masks and num_layers > 1 else None
    first["weight_ih"] = embedding @ weight
    loss, gradients, after = reference.loss_and_gradients(params, *rest, masks)
    d_table = gradients["layers"]["0"]["weight_ih"]
    gradients["layers"]["0"]["weight_ih"] = embedding.T @ d_table
    first["weight_ih"] = weight
    carry, inputs, targets = rest
    (found, found_after), (d_embedding, d_params) = _of_embedding(
        network_of(recurrence, target=target),
        put(float32(embedding), None),
        put(float32(params), None),
        put(float32(carry), 1),
        put(jnp.asarray(inputs), 1),
        put(jnp.asarray(targets), 1),
        None if masks is None else put(float32(masks), 2),
    )
    assert_close(found, loss)
    assert_close(found_after, after)
    assert_close(d_params, gradients)
    assert_close(d_embedding, d_table @ weight.T)


def assert_agrees_when_split(recurrence, num_devices=2, steps=9, target=None):
    """Streams split over the devices of a mesh give what one device gives.

    Drops values with masks for `steps` time steps, see `random_masks`, or none.
    """
    masks = None if steps is None else random_masks(steps)
    case = *reference.random_case(21, num_layers=3), masks
    assert_split_network_agrees(network_of(recurrence, target=target), case, num_devices)


def assert_split_network_agrees(network, case, num_devices=2):
    """The same of parameters, carry, inputs, targets and masks (or None), 4 streams."""
    params, carry, inputs, targets, masks = case
    params, carry = float32(params), float32(carry)
    masks = None if masks is None else float32(masks)
    whole = loss_and_gradients(network, params, carry, inputs, targets, masks)
    mesh = meshes.make_mesh(4)
    assert mesh.size == num_devices
    with jax.set_mesh(mesh):

        def split(array, axis):
            spec = [None] * array.ndim
            spec[axis] = meshes.DATA_AXIS
            return jax.device_put(array, jax.NamedSharding(mesh, jax.P(*spec)))

        found = loss_and_gradients(
            network,
            jax.device_put(params, jax.NamedSharding(mesh, jax.P())),
            {name: split(state, 1) for name, state in carry.items()},
            split(inputs, 1),
            split(targets, 1),
            None if masks is None else split(masks, 2),
        )
        assert jax.typeof(found[1]["h"]).sharding.spec[1] == meshes.DATA_AXIS
        assert_close(found, whole)
