"""Measures how far a recurrence is from the same network in float64, on this device."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.competitors import Competitor, plain_scan, versions_of
from charlstm.benchmark import shapes
from charlstm.benchmark.fields import config_of
from charlstm.config import Config, ModelConfig
from charlstm.model import parameters
from charlstm.model.network import Network, next_symbol_nats
from charlstm.model.recurrence import PallasTpu
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target

# The name of tensor parallelism, which splits each layer among devices.
SPLIT = "split"
# A wavefront with fewer chunks than this in a window would overlap little, or run as a scan.
CHUNKS = 4


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares runs that compute a window's loss and gradients; `count` changes nothing.

    The figures of a run are `loss_error`, relative, and `gradient_error`, the largest
    |difference| / |reference| (Euclidean norms) of any parameter's gradient.

    Args:
      spec: `shape` and `dtype`; `recurrence` and `residuals`, values of the fields of `model`.
    """
    shape = shapes.Shape(**spec["shape"])
    if spec["recurrence"] == SPLIT:  # has an effect only on a CPU
        meshes.set_cpu_devices(2)
    model_devices = jax.device_count() if spec["recurrence"] == SPLIT else 1
    if spec["recurrence"] == SPLIT and model_devices == 1:
        raise RuntimeError("needs two devices to share a layer, and there is one")
    mesh = meshes.make_mesh(shape.num_streams, model=model_devices)
    model = _config(spec, shape, model_devices).model
    network = _network(model, Target.of_mesh(mesh), model_devices)
    params, carry, inputs, targets = _problem(shape)

    def loss(params: Any, carry: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits, _ = network.apply(params, carry, inputs)
        return jnp.mean(next_symbol_nats(logits, targets)[0])

    def run(count: int) -> dict[str, float]:
        del count
        with jax.set_mesh(mesh), jax.default_matmul_precision("float32"):
            arguments = (
                jax.device_put(params, meshes.replicated(mesh)),
                jax.device_put(carry, meshes.split_streams(mesh, axis=1, ndim=3)),
                *jax.device_put((inputs, targets), meshes.split_streams(mesh, axis=1, ndim=2)),
            )
            nats, gradients = jax.device_get(jax.jit(jax.value_and_grad(loss))(*arguments))
        true_nats, true_gradients = _reference(shape)
        errors = jax.tree.map(_distance, gradients, true_gradients)
        return {
            "loss_error": abs(float(nats) - true_nats) / true_nats,
            "gradient_error": max(jax.tree.leaves(errors)),
        }

    info = {
        "versions": versions_of("charlstm", "jax", "jaxlib", "numpy"),
        "device": jax.devices()[0].device_kind,
    }
    return Competitor(run, info)


def _network(model: ModelConfig, target: Target, model_devices: int) -> Network:
    """Returns the network; the kernels for a TPU are interpreted where there is none."""
    if model.recurrence != PallasTpu.name or target.platform == PallasTpu.platform:
        return Network.of(model, target, model_devices=model_devices)
    scanned = dataclasses.replace(model, recurrence="scan")
    return Network.of(scanned, target).replace(recurrence=PallasTpu(interpret=True))


def _config(spec: dict[str, Any], shape: shapes.Shape, model_devices: int) -> Config:
    """Returns the configuration that a spec asks for.

    Raises:
      UserError: the recurrence cannot compute that.
    """
    return config_of(
        shape,
        {
            "model.recurrence": spec["recurrence"],
            "model.residuals": spec["residuals"],
            "model.compute_dtype": spec["dtype"],
            "model.wavefront_chunk": max(1, shape.window_length // CHUNKS),
            "mesh.model": model_devices,
        },
    )


@functools.cache
def _problem(shape: shapes.Shape) -> tuple[Any, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Returns parameters, a carry, inputs and targets, the same for every recurrence."""
    model = config_of(shape, {}).model
    params = jax.device_get(parameters.init_params(jax.random.key(0), model, shape.num_symbols))
    rng = np.random.default_rng(0)
    sizes = shape.num_layers, shape.num_streams, shape.hidden_size
    carry = {name: rng.uniform(-0.5, 0.5, sizes).astype(np.float32) for name in ("h", "c")}
    window = rng.integers(0, shape.num_symbols, (shape.window_length + 1, shape.num_streams))
    return params, carry, window[:-1].astype(np.int32), window[1:].astype(np.int32)


@functools.cache
def _reference(shape: shapes.Shape) -> tuple[float, Any]:
    """Computes loss and gradients with the plain scan in float64, on the CPU."""
    params, carry, inputs, targets = _problem(shape)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, carry))
        value_and_grad = jax.jit(jax.value_and_grad(plain_scan.loss, has_aux=True))
        (nats, _), gradients = jax.device_get(value_and_grad(*exact, inputs, targets))
    return float(nats), gradients


def _distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted))
