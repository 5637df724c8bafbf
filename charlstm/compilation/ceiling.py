"""The ceiling of an update's speed: what the rates of chip and links allow, never a measurement.

Arithmetic, memory and links are taken to work at the rates of the data sheets, at the same time,
and at nothing that need not be done. A program comes nowhere near that; none can pass it.
"""

import dataclasses
from collections.abc import Sequence

from charlstm.compilation.chips import Chip
from charlstm.compilation.counting import Collective
from charlstm.config import Config
from charlstm.model.size import num_parameters, products_per_byte

# Of one layer and byte of text, in units of H and of the compute dtype: how often a number is
# written to or read from memory. The share of the pre-activations is written and read (4H each);
# so are the factors of the derivative (6H each). The outputs are written, and read by the layer
# above and by two weight gradients; dz (4H) is written and read by three products; the outputs'
# gradient is written and read.
_ACTIVATIONS = 2 * 4 + 2 * 6 + 4 * 1 + 4 * 4 + 2 * 1
# Of one parameter, in float32: Adam reads it, its gradient and two moments, and writes all four.
_OPTIMIZER = 8
# Of one parameter, in the compute dtype: the cast is written, and read in both directions.
_WEIGHTS = 3
# Of one logit, in float32: written, read for the loss, read for its gradient.
_LOGITS = 3


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """The seconds that an update takes at least, by what takes them; each of one device.

    Attributes:
      products: for the matrix products.
      memory: for the bytes that must go to or come from the device's memory.
      links: for the collectives.
      bytes_per_update: of text.
    """

    products: float
    memory: float
    links: float
    bytes_per_update: int

    @property
    def bytes_per_second(self) -> float:
        """Returns the bytes of text per second that all devices train on at most."""
        return self.bytes_per_update / max(self.products, self.memory, self.links)

    @property
    def limit(self) -> str:
        """Returns the name of what the ceiling is made of."""
        names = ("products", "memory", "links")
        return max(names, key=lambda name: float(getattr(self, name)))


def flops_per_byte(config: Config, alphabet_size: int) -> int:
    """Returns the floating-point operations of training on one byte, those of products alone.

    A multiply-add is two, and the backward pass has two products for each of the forward pass.
    """
    return 6 * products_per_byte(config.model, alphabet_size)


def memory_bytes_per_byte(config: Config, alphabet_size: int, item: int) -> float:
    """Returns the least bytes of memory traffic per byte of text, on one device without a mesh.

    Args:
      config: the sizes.
      alphabet_size: V.
      item: bytes of the compute dtype.
    """
    bytes_per_update = config.data.num_streams * config.data.window_length
    parameters = _parameter_bytes(config, alphabet_size, item)
    return _window_bytes(config, alphabet_size, item) + parameters / bytes_per_update


def _window_bytes(config: Config, alphabet_size: int, item: int) -> int:
    """Returns the memory traffic of a byte of text for what depends on the text."""
    model = config.model
    activations = _ACTIVATIONS * model.hidden_size * model.num_layers * item
    return activations + _LOGITS * 4 * alphabet_size


def _parameter_bytes(config: Config, alphabet_size: int, item: int) -> int:
    """Returns the memory traffic of an update for the parameters."""
    return num_parameters(config.model, alphabet_size) * (4 * _OPTIMIZER + item * _WEIGHTS)


def ceiling(
    config: Config,
    alphabet_size: int,
    dtype: str,
    chip: Chip,
    mesh_shape: tuple[int, int],
    collectives: Sequence[Collective],
    devices_of_a_host: int,
) -> Ceiling:
    """Returns the ceiling of an update.

    Args:
      config, alphabet_size: what is trained.
      dtype: the name of the compute dtype.
      chip: each of the devices.
      mesh_shape: the devices along `data` and `model`.
      collectives: of an update.
      devices_of_a_host: that reach each other by links and not by a network.
    """
    item = {"float32": 4, "bfloat16": 2}[dtype]
    num_devices = mesh_shape[0] * mesh_shape[1]
    bytes_per_update = config.data.num_streams * config.data.window_length
    flops = flops_per_byte(config, alphabet_size) * bytes_per_update / num_devices
    traffic = _window_bytes(config, alphabet_size, item) * bytes_per_update / num_devices
    traffic += _parameter_bytes(config, alphabet_size, item) / mesh_shape[1]
    links = 0.0
    for each in collectives:
        within = each.group_size <= devices_of_a_host or chip.platform == "tpu"
        rate = chip.link_bandwidth if within else chip.network_bandwidth
        links += _sent_bytes(each) / rate
    return Ceiling(
        products=flops / chip.product_rate[dtype],
        memory=traffic / chip.memory_bandwidth,
        links=links,
        bytes_per_update=bytes_per_update,
    )


def _sent_bytes(collective: Collective) -> float:
    """Returns the bytes that a device sends at least, by the algorithms of a ring."""
    n = max(1, collective.group_size)
    factor = {
        "all-reduce": 2 * (n - 1) / n,
        "reduce-scatter": n - 1,  # of the result, a share of what is added up
    }.get(collective.kind, 1.0 if "permute" in collective.kind else (n - 1) / n)
    return factor * collective.bytes
