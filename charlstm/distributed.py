"""Devices: the mesh and how arrays are laid over it.

The batch is split over the axis `data`; parameters and optimizer state are on every device.
"""

import jax
from jax.sharding import AxisType, Mesh

from charlstm.errors import UserError

DATA_AXIS = "data"


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
