"""Targets: what a program is compiled for, as a value that models and runs carry."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

import jax

Platform = Literal["cpu", "cuda", "rocm", "tpu"]


@dataclasses.dataclass(frozen=True)
class Target:
    """The kind of device that a program is compiled for; it need not be this machine's.

    Attributes:
      platform: cpu, cuda (NVIDIA GPUs), rocm (AMD GPUs) or tpu.
      chip: the device kind as JAX names it, such as `NVIDIA H100 80GB HBM3` or `TPU v5 lite`.
      has_amx: True for a CPU that multiplies tiles of bfloat16 (Intel's AMX).
    """

    platform: Platform
    chip: str
    has_amx: bool = False

    @classmethod
    def of(cls, device: Any) -> "Target":
        """Returns the target that a JAX device is."""
        platform = device.platform
        if platform == "gpu":
            # Of a chip that is compiled for and not there, the version is the chip's name.
            version = device.client.platform_version.lower()
            platform = "cuda" if "cuda" in version or "nvidia" in version else "rocm"
        return cls(platform, device.device_kind, platform == "cpu" and _has_amx())

    @classmethod
    def of_mesh(cls, mesh: jax.sharding.Mesh) -> "Target":
        """Returns the target of a mesh, whose devices are of one kind."""
        return cls.of(mesh.devices.flat[0])

    @classmethod
    def of_this_machine(cls) -> "Target":
        """Returns the target of the default devices of this process; starts JAX's backend."""
        return cls.of(jax.devices()[0])

    @property
    def is_gpu(self) -> bool:
        """True for GPUs of any maker."""
        return self.platform in ("cuda", "rocm")

    @property
    def is_cpu(self) -> bool:
        """True for the processor itself."""
        return self.platform == "cpu"


@functools.cache
def _has_amx(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Returns True if this machine's processor multiplies tiles of bfloat16.

    Linux lists what the processor has, and what a virtual machine passes on.
    """
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return False
    features = next((line.split() for line in lines if line.startswith("flags")), [])
    return {"amx_tile", "amx_bf16"} <= set(features)
