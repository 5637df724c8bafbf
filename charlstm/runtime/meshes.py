"""Meshes: the devices that arrays are split over, and how arrays get there.

The streams are split over the mesh's axis `data`; the hidden units of a layer too large for one
device over `model`.
"""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from charlstm.errors import UserError

DATA_AXIS = "data"
MODEL_AXIS = "model"

# Up to this hidden size one device for each core, with a share of the streams, is faster than one
# device that spans the cores (benchmarks/README.md): its products and what is done between them
# stay on one core. Above it, adding up the gradients of all devices costs more than that gains.
LARGEST_HIDDEN_SIZE_FOR_A_DEVICE_PER_CORE = 512
# Nor with shorter windows: one step an update is twice as fast on one device.
SHORTEST_WINDOW_FOR_A_DEVICE_PER_CORE = 8


def cpu_devices_for(
    hidden_size: int,
    num_streams: int,
    window_length: int | None = None,
    data: int = 0,
    model: int = 1,
    processes: int = 1,
) -> int:
    """Returns how many devices this process had best split the CPU into.

    As many as its share of the mesh if that is given; else, for small layers, windows of some
    length and a single process, one for each core; else one. No more than share the streams out
    evenly.

    Args:
      hidden_size, num_streams: of the model and of the batch.
      window_length: after which the devices add up their gradients; None: they need not.
      data, model: of the mesh; data 0 is free.
      processes: how many there are.
    """
    if data:
        return max(1, data * model // processes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    is_large = hidden_size > LARGEST_HIDDEN_SIZE_FOR_A_DEVICE_PER_CORE
    is_short = window_length is not None and window_length < SHORTEST_WINDOW_FOR_A_DEVICE_PER_CORE
    if is_large or is_short or processes > 1:
        cores = 1
    fitting = [
        count
        for count in range(model, max(cores, model) + 1, model)
        if num_streams % (count // model) == 0
    ]
    return max(1, max(fitting) // processes)


def set_cpu_devices(count: int) -> None:
    """Makes this process's CPU `count` devices; to be called before the first array is made."""
    jax.config.update("jax_num_cpu_devices", count)


def make_mesh(
    num_streams: int,
    data: int = 0,
    model: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Returns a mesh of all devices, with the explicit axes `data` and `model`.

    Args:
      num_streams: B, to be shared out over `data`.
      data, model: the devices along each axis; 0 for data takes all that model leaves.
      devices: all of them; None for those of all processes.

    Raises:
      UserError: the devices do not make such a mesh, or the streams cannot be shared out evenly.
    """
    devices = jax.devices() if devices is None else devices
    num_devices = len(devices)
    if num_devices % model or (data and data * model != num_devices):
        is_cpu = devices[0].platform == "cpu"
        cpu = "; a CPU is split by --num_cpu_devices=N" if is_cpu else ""
        processes = len({device.process_index for device in devices})
        raise UserError(
            f"mesh.data={data or num_devices // model} × mesh.model={model} does not make "
            f"{num_devices} device(s), as many as there are in {processes} process(es): "
            f"set them to a product of {num_devices}, or mesh.data=0 for all that remain{cpu}"
        )
    data = num_devices // model
    if num_streams % data:
        raise UserError(
            f"data.num_streams={num_streams} cannot be shared out evenly over {data} devices: "
            f"make it a multiple of {data}"
        )
    axes, types = (DATA_AXIS, MODEL_AXIS), (AxisType.Explicit,) * 2
    try:
        return jax.make_mesh((data, model), axes, axis_types=types, devices=devices)
    except NotImplementedError:  # a TPU slice has no axes of these lengths: take parts of them
        arranged = mesh_utils.create_device_mesh(
            (data, model), devices, allow_split_physical_axes=True
        )
        return Mesh(arranged, axes, axis_types=types)


def sizes_of(mesh: Mesh) -> tuple[int, int]:
    """Returns the devices of a mesh along `data` and `model`."""
    return mesh.shape[DATA_AXIS], mesh.shape[MODEL_AXIS]


def single_device_mesh(device: jax.Device | None = None) -> Mesh:
    """Returns a mesh of one device with the axis `data`; None takes this process's first."""
    devices = [jax.local_devices()[0] if device is None else device]
    return jax.make_mesh((1,), (DATA_AXIS,), axis_types=(AxisType.Explicit,), devices=devices)


def make_sampling_mesh(num_texts: int) -> Mesh:
    """Returns a mesh for texts made side by side: one device, or one for each core of a CPU.

    A device for each core where the texts can be shared out over them evenly; to be called before
    the first array is made.
    """
    set_cpu_devices(cpu_devices_for(1, num_texts))
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        devices = devices[:1]
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Explicit,), devices=devices
    )


def replicated(mesh: Mesh) -> jax.NamedSharding:
    """Returns the sharding of an array that every device has whole."""
    return jax.NamedSharding(mesh, jax.P())


def split_streams(mesh: Mesh, *, axis: int, ndim: int) -> jax.NamedSharding:
    """Returns the sharding of an array split over `data` along one of `ndim` dimensions."""
    dimensions: list[str | None] = [None] * ndim
    dimensions[axis] = DATA_AXIS
    return jax.NamedSharding(mesh, jax.P(*dimensions))


def put(array: np.ndarray, sharding: jax.NamedSharding) -> jax.Array:
    """Puts an array that every process has whole on the devices.

    Unlike `jax.device_put` it never asks the other processes whether theirs is equal.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return put_shards(array.shape, array.dtype, sharding, lambda index: array[index])


def put_shards(
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: jax.NamedSharding,
    shard: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
    """Makes an array of which each process gives the shards of its own devices only.

    Args:
      shape, dtype: of the whole.
      sharding: over the devices of all processes.
      shard: the part at an index of one slice for each dimension; called once for each different
        part, though several devices may hold it.
    """
    parts: dict[tuple[tuple[int, int], ...], np.ndarray] = {}
    arrays = []
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        assert index is not None
        bounds = tuple(i.indices(n)[:2] for i, n in zip(index, shape, strict=True))
        if bounds not in parts:
            parts[bounds] = np.asarray(shard(tuple(slice(*ends) for ends in bounds)), dtype)
        arrays.append(jax.device_put(parts[bounds], device))
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays, dtype=dtype)
