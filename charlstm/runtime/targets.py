"""Targets: what a program is compiled for, as a value that models and runs carry."""

import dataclasses
from typing import Any, Literal

import jax

Platform = Literal["cpu", "cuda", "rocm", "tpu"]


@dataclasses.dataclass(frozen=True)
class Target:
    """The kind of device that a program is compiled for; it need not be this machine's.

    Attributes:
      platform: cpu, cuda (NVIDIA GPUs), rocm (AMD GPUs) or tpu.
      chip: the device kind as JAX names it, such as `NVIDIA H100 80GB HBM3` or `TPU v5 lite`.
    """

    platform: Platform
    chip: str

    @classmethod
    def of(cls, device: Any) -> "Target":
        """Returns the target that a JAX device is."""
        platform = device.platform
        if platform == "gpu":
            # Of a chip that is compiled for and not there, the version is the chip's name.
            version = device.client.platform_version.lower()
            platform = "cuda" if "cuda" in version or "nvidia" in version else "rocm"
        return cls(platform, device.device_kind)

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
