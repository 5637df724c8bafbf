"""Devices: the mesh and how arrays are laid over it.

The batch is split over the axis `data`; parameters and optimizer state are on every device.
"""

import os

import jax
from jax.sharding import AxisType, Mesh

from charlstm.errors import UserError

DATA_AXIS = "data"


# Up to this hidden size a time step's product is too small to keep two cores busy, and one device
# for each core, with a share of the streams, is faster than one device that spans them.
LARGEST_HIDDEN_SIZE_FOR_A_DEVICE_PER_CORE = 256


def cpu_devices_for(hidden_size: int, num_streams: int) -> int:
    """How many devices the CPU had best be for a model: one, or one for each core.

    No more than share the streams out evenly.
    """
    if hidden_size > LARGEST_HIDDEN_SIZE_FOR_A_DEVICE_PER_CORE:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(count for count in range(1, cores + 1) if num_streams % count == 0)


def set_cpu_devices(count: int) -> None:
    """Makes the CPU `count` devices; to be called before the first array is made."""
    jax.config.update("jax_num_cpu_devices", count)


def make_mesh(num_streams: int) -> Mesh:
    """A mesh of all devices along `data`, with explicit axes.

    Raises:
      UserError: the streams cannot be shared out evenly.
    """
    num_devices = jax.device_count()
    if num_streams % num_devices:
        raise UserError(
            f"data.num_streams={num_streams} cannot be shared out evenly over {num_devices} "
            f"devices: make it a multiple of {num_devices}"
        )
    return jax.make_mesh((num_devices,), (DATA_AXIS,), axis_types=(AxisType.Explicit,))


def replicated(mesh: Mesh) -> jax.NamedSharding:
    """On every device whole."""
    return jax.NamedSharding(mesh, jax.P())


def split_streams(mesh: Mesh, *, axis: int, ndim: int) -> jax.NamedSharding:
    """Split over `data` along one of `ndim` dimensions."""
    dimensions: list[str | None] = [None] * ndim
    dimensions[axis] = DATA_AXIS
    return jax.NamedSharding(mesh, jax.P(*dimensions))
