"""Chips: how fast they multiply, and how much memory they have, by their makers' data sheets.

None of these figures was measured here. They bound what a program can reach, and are called
ceilings wherever they are shown.

Sources: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM and H200 SXM (dense products, without
sparsity); Google Cloud's pages of TPU v4, v5e, v5p, v6e and TPU7x.
"""

import dataclasses

GB, TB = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them; a TPU7x chip is two of these.

    Attributes:
      name: as users write it.
      platform: cuda or tpu.
      product_rate: FLOP/s of dense products, by the dtype of their inputs.
      memory_bytes: of the device.
      memory_bandwidth: bytes/s, read and written together.
      link_bandwidth: bytes/s that the device sends to the others of its host or slice.
      network_bandwidth: bytes/s that it sends to devices of other hosts.
    """

    name: str
    platform: str
    product_rate: dict[str, float]
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float


def _gpu(name: str, bfloat16: float, tf32: float, memory: float, rate: float, link: float) -> Chip:
    # One 400 Gbit/s network adapter for each GPU, as in the makers' reference systems.
    rates = {"bfloat16": bfloat16 * TB, "float32": tf32 * TB}
    return Chip(name, "cuda", rates, memory * GB, rate * TB, link * GB, 50 * GB)


def _tpu(name: str, bfloat16: float, memory: float, rate: float, link: float) -> Chip:
    # A product of float32 is made of three or more of bfloat16; links reach over the whole slice.
    rates = {"bfloat16": bfloat16 * TB, "float32": bfloat16 * TB / 3}
    return Chip(name, "tpu", rates, memory * 2**30, rate * GB, link * GB, link * GB)


CHIPS = {
    chip.name: chip
    for chip in (
        _gpu("a100", 312, 156, 84.9, 2.039, 300),
        _gpu("h100", 989, 494, 84.9, 3.35, 450),
        _gpu("h200", 989, 494, 150.1, 4.8, 450),
        _tpu("v4", 275, 32, 1200, 300),
        _tpu("v5e", 197, 16, 819, 200),
        _tpu("v5p", 459, 95, 2765, 600),
        _tpu("v6e", 918, 32, 1640, 448),
        _tpu("tpu7x", 1153, 96, 3690, 600),
    )
}

# The kinds of device as JAX names them, each by the beginning of its name; longer ones first.
_KINDS = {
    "NVIDIA A100": "a100",
    "NVIDIA H100": "h100",
    "NVIDIA H200": "h200",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6": "v6e",
    "TPU7x": "tpu7x",
}


def chip_of_kind(device_kind: str) -> Chip | None:
    """Returns the chip that JAX calls `device_kind`; None if it is not in the table."""
    for beginning, name in _KINDS.items():
        if device_kind.lower().startswith(beginning.lower()):
            return CHIPS[name]
    return None
