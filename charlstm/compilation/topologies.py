"""Topologies: devices to compile for, described by name, that this machine need not have."""

import dataclasses
import importlib.metadata
import math
import re
from typing import Any

from charlstm.compilation.chips import CHIPS, Chip
from charlstm.errors import UserError, in_one_line

EXAMPLES = "v5e:2x2, v5e:16x16, v5p:8x8x8, v6e:1x1, tpu7x:2x2x1, h100:8, h100:8x8, h200:1, a100:8"

# What XLA must know of a GPU to compile for it, for the chips of `CHIPS`: the device's name,
# compute capability, multiprocessors, shared memory of a block, L2 cache, and clock in GHz.
_GPUS = {
    "a100": ("NVIDIA A100-SXM4-80GB", 8, 0, 108, 166912, 41943040, 1.41),
    "h100": ("NVIDIA H100 80GB HBM3", 9, 0, 132, 232448, 52428800, 1.98),
    "h200": ("NVIDIA H200", 9, 0, 132, 232448, 62914560, 1.98),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind and how they are arranged.

    Attributes:
      name: as the user wrote it, such as `v5e:2x2`.
      chip: the kind.
      shape: of a TPU slice, its chips along each axis; of GPUs, (processes, GPUs of each).
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Reads `CHIP:SHAPE`: `v5e:2x2` is a slice, `h100:8x4` are 8 processes of 4 GPUs.

        Raises:
          UserError: there is no such chip, or the shape is none.
        """
        chip, colon, shape = name.strip().lower().partition(":")
        if chip not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape if colon else "1"):
            raise UserError(
                f"--topology={name} must be CHIP:SHAPE, where CHIP is one of {', '.join(CHIPS)}; "
                f"for example {EXAMPLES}"
            )
        sizes = tuple(map(int, shape.split("x"))) if colon else (1,)
        found = CHIPS[chip]
        if found.platform == "cuda":
            if len(sizes) > 2:
                raise UserError(
                    f"--topology={name}: GPUs are GPUS or PROCESSESxGPUS, for example {chip}:8 or "
                    f"{chip}:8x8"
                )
            sizes = (1, *sizes)[-2:]
        elif not colon:
            sizes = (1, 1)
        return cls(name, found, sizes)

    @property
    def num_chips(self) -> int:
        """Returns the number of chips."""
        return math.prod(self.shape)

    def devices(self) -> list[Any]:
        """Returns the devices, which can be compiled for and nothing else.

        Raises:
          UserError: the compiler for this chip is not installed, or it knows no such shape.
        """
        from jax.experimental import topologies

        self._require_compiler()
        try:
            if self.chip.platform == "tpu":
                shape = "x".join(map(str, self.shape))
                found = topologies.get_topology_desc(
                    platform="tpu", topology_name=f"{self.chip.name}:{shape}", **self._tpu_options()
                )
            else:
                found = topologies.get_topology_desc(
                    platform="cuda",
                    topology="x".join(map(str, (1, *self.shape))),
                    target_config=_target_config(self.chip),
                )
        except Exception as error:  # of several types, by platform and version
            reason = in_one_line(error, 200)
            raise UserError(
                f"--topology={self.name}: the compiler does not take it ({reason}); for example "
                f"{EXAMPLES}"
            ) from error
        return list(found.devices)

    def _tpu_options(self) -> dict[str, Any]:
        """Returns what the TPU compiler must know beside the topology's name."""
        options: dict[str, Any] = {}
        if max(self.shape) <= 2 and self.num_chips < 4:  # a part of a host
            options["chips_per_host_bounds"] = [*self.shape, 1, 1][:3]
        if self.chip.name == "v4":  # the two cores of a chip are one device
            options["chip_config_name"] = "megacore"
        return options

    def _require_compiler(self) -> None:
        platform = self.chip.platform
        wanted = {"tpu": ("libtpu",), "cuda": ("jax-cuda13-pjrt", "jax-cuda12-pjrt")}[platform]
        if not any(_is_installed(package) for package in wanted):
            extra = {"tpu": "compile-tpu", "cuda": "compile-gpu"}[platform]
            raise UserError(
                f"--topology={self.name} needs the compiler of that chip, which runs on any "
                f"machine and is not installed: pip install 'charlstm[{extra}]'"
            )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _target_config(chip: Chip) -> str:
    """Returns XLA's description of a GPU, a GpuTargetConfigProto as text."""
    name, major, minor, cores, shared, cache, clock = _GPUS[chip.name]
    extension = "feature_extension: ACCELERATED_FEATURES" if major == 9 else ""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared + 1024}
  shared_memory_per_block_optin: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {128 if major == 9 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {int(chip.memory_bandwidth)}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {int(chip.memory_bytes)}
  cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
  device_vendor: "NVIDIA Corporation"
  name: "{name}"
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
