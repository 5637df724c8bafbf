"""How far a recurrence is from the same network in float64, on the device that there is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workloads
from benchmarks.contestants import Contestant, plain_scan, versions_of
from charlstm import distributed
from charlstm.model import language_model

# The layers of this one are shared out among devices.
SPLIT = "split"


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn computes a window's loss and gradients; `count` changes nothing.

    Its figures: for the loss `loss_error`, relative, and for all gradients `gradient_error`, the
    largest |difference| / |reference| (Euclidean norms) of any parameter.

    Args:
      spec: `shape`, `recurrence`, `dtype`.
    """
    shape = workloads.Shape(**spec["shape"])
    dtype = jnp.dtype(spec["dtype"])
    if spec["recurrence"] == SPLIT:  # of the CPU, if that is what there is
        distributed.set_cpu_devices(2)
    model = jax.device_count() if spec["recurrence"] == SPLIT else 1
    if spec["recurrence"] == SPLIT and model == 1:
        raise RuntimeError("needs two devices to share a layer, and there is one")
    mesh = distributed.make_mesh(shape.num_streams, model=model)
    params = language_model.init_params(
        jax.random.key(0),
        alphabet_size=shape.num_symbols,
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        forget_bias=1.0,
    )
    rng = np.random.default_rng(0)
    sizes = shape.num_layers, shape.num_streams, shape.hidden_size
    carry = {name: rng.uniform(-0.5, 0.5, sizes).astype(np.float32) for name in ("h", "c")}
    window = rng.integers(0, shape.num_symbols, (shape.window_length + 1, shape.num_streams))
    inputs, targets = window[:-1].astype(np.int32), window[1:].astype(np.int32)

    def loss(params: Any, carry: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits, _ = language_model.apply(
            params, carry, inputs, compute_dtype=dtype, recurrence_name=spec["recurrence"]
        )
        return jnp.mean(language_model.next_symbol_nats(logits, targets)[0])

    def turn(count: int) -> dict[str, float]:
        del count
        with jax.set_mesh(mesh), jax.default_matmul_precision("float32"):
            arguments = (
                jax.device_put(params, distributed.replicated(mesh)),
                jax.device_put(carry, distributed.split_streams(mesh, axis=1, ndim=3)),
                *jax.device_put((inputs, targets), distributed.split_streams(mesh, axis=1, ndim=2)),
            )
            nats, gradients = jax.device_get(jax.jit(jax.value_and_grad(loss))(*arguments))
        true_nats, true_gradients = _reference(jax.device_get(params), carry, inputs, targets)
        errors = jax.tree.map(_distance, gradients, true_gradients)
        return {
            "loss_error": abs(float(nats) - true_nats) / true_nats,
            "gradient_error": max(jax.tree.leaves(errors)),
        }

    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": jax.devices()[0].device_kind,
    }
    return Contestant(turn, info)


def _reference(params: Any, carry: Any, inputs: Any, targets: Any) -> tuple[float, Any]:
    """Loss and gradients by the plain scan in float64, on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, carry))
        value_and_grad = jax.jit(jax.value_and_grad(plain_scan.loss, has_aux=True))
        (nats, _), gradients = jax.device_get(value_and_grad(*exact, inputs, targets))
    return float(nats), gradients


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted))
