"""Compiles the dispatch of a configuration for a topology, and reports on it."""

import dataclasses
import os
import time
from typing import Any

import jax

from charlstm.compilation.ceiling import (
    Ceiling,
    ceiling,
    flops_per_byte,
    memory_bytes_per_byte,
)
from charlstm.compilation.chips import Chip, chip_of_kind
from charlstm.compilation.counting import Collective, Kernels, collectives
from charlstm.compilation.program_text import Program
from charlstm.compilation.topologies import Topology
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams, resident_bytes, resident_bytes_within
from charlstm.errors import UserError, in_one_line
from charlstm.model.network import Network
from charlstm.model.recurrence import OnChip
from charlstm.runtime import meshes, xla
from charlstm.runtime.targets import Target
from charlstm.training import program
from charlstm.training.memory import (
    MemoryTable,
    available_bytes,
    bytes_on_a_device,
    largest_batch,
)

# Without them libtpu looks for the TPU that it runs on and complains that there is none, or that
# another process has it.
_NOT_ON_A_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
# The share of its memory that a device gives to programs: of a GPU, JAX takes as much by default.
_MEMORY_SHARES = {"cuda": 0.75, "tpu": 0.97}


@dataclasses.dataclass(frozen=True)
class Machine:
    """The devices that are compiled for.

    Attributes:
      name: of the topology, or `this machine`.
      devices: of one kind.
      chip: its figures; None if they are not known.
      available_bytes: of memory, on each device; None if it is not known.
      resident_bytes: the largest text that is kept on the devices.
    """

    name: str
    devices: list[Any]
    chip: Chip | None
    available_bytes: int | None
    resident_bytes: int

    @classmethod
    def of(cls, topology: Topology) -> "Machine":
        """Returns the devices of a topology.

        Raises:
          UserError: its compiler is not installed, or does not take it.
        """
        chip = topology.chip
        devices = topology.devices()
        share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0) or 0)
        if chip.platform != "cuda" or not 0 < share <= 1:
            share = _MEMORY_SHARES[chip.platform]
        available = int(chip.memory_bytes * share)
        return cls(topology.name, devices, chip, available, resident_bytes_within(available))

    @classmethod
    def here(cls) -> "Machine":
        """Returns the devices of this machine."""
        devices = jax.devices()
        chip = chip_of_kind(devices[0].device_kind)
        return cls("this machine", devices, chip, available_bytes(), resident_bytes())

    @classmethod
    def named(cls, topology: str) -> "Machine":
        """Returns the devices of a topology by its name; JAX itself keeps to the CPU then.

        Raises:
          UserError: see `Topology.parse` and `Topology.devices`.
        """
        parsed = Topology.parse(topology)
        jax.config.update("jax_platforms", "cpu")  # whatever chips are here are not needed
        for name, value in _NOT_ON_A_TPU.items():
            os.environ.setdefault(name, value)
        return cls.of(parsed)

    @property
    def devices_of_a_host(self) -> int:
        """Returns how many devices belong to one process."""
        return len(self.devices) // len({device.process_index for device in self.devices})


@dataclasses.dataclass(frozen=True)
class Report:
    """Holds what compiling a dispatch showed.

    Attributes:
      machine: the devices.
      network: what an update computes.
      mesh_shape: the devices along `data` and `model`.
      num_streams: of all devices together.
      memory: bytes by kind.
      largest_num_streams: the largest batch that was compiled and fits; 0 if none does, None if
        the memory is not known or none was looked for.
      collectives: of an update.
      kernels: of an update; None where the target has no kernels.
      on_chip: of the recurrence's own kernel, if it has one.
      ceiling: None if the chip's figures are not known.
      flops_per_byte, memory_bytes_per_byte: of text, analytic.
      compile_seconds: of the dispatch itself.
      donated_bytes: of the state, on one device, that an update overwrites in place.
      product_dtypes: of the operands of matrix products, each as `bf16 x bf16`.
    """

    machine: Machine
    network: Network
    mesh_shape: tuple[int, int]
    num_streams: int
    memory: MemoryTable
    largest_num_streams: int | None
    collectives: list[Collective]
    kernels: Kernels | None
    kernels_per_time_step: dict[str, float] | None
    on_chip: OnChip | None
    ceiling: Ceiling | None
    flops_per_byte: int
    memory_bytes_per_byte: float
    compile_seconds: float
    donated_bytes: int
    product_dtypes: set[str]

    @property
    def fits(self) -> bool | None:
        """Returns True if the dispatch fits into the memory; None if that is not known."""
        available = self.machine.available_bytes
        return None if available is None else self.memory.total <= available


class DoesNotCompile(UserError):
    """Reports that the compiler refused a dispatch; the message is the compiler's reason."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """Describes what is compiled.

    Attributes:
      config: the experiment.
      alphabet: of the model.
      num_bytes: of the training split.
    """

    config: Config
    alphabet: Alphabet
    num_bytes: int

    def with_streams(self, num_streams: int) -> "Subject":
        """Returns the same with another batch."""
        config = self.config.replace({"data.num_streams": num_streams})
        return dataclasses.replace(self, config=config)


def compile_for(subject: Subject, machine: Machine, *, find_largest: bool = True) -> Report:
    """Compiles the dispatch that `charlstm train` would run on a machine.

    Args:
      subject: what is trained.
      machine: the devices.
      find_largest: compile up to four more batches to find the largest that fits.

    Raises:
      UserError: the configuration does not suit the devices, or does not compile for them.
    """
    config, mesh_config = subject.config, subject.config.mesh
    sizes = mesh_config.data, mesh_config.model
    mesh = meshes.make_mesh(config.data.num_streams, *sizes, machine.devices)
    mesh_shape = meshes.sizes_of(mesh)
    with jax.set_mesh(mesh):
        found, compiled, table, seconds = _compile(subject, machine, mesh)
        largest = None
        if find_largest and machine.available_bytes is not None:

            def needed(num_streams: int) -> int | None:
                try:
                    return _compile(subject.with_streams(num_streams), machine, mesh)[2].total
                except UserError:  # the compiler, or the recurrence, does not take so many
                    return None

            largest = largest_batch(
                config.data.num_streams,
                mesh_shape[0],
                subject.num_bytes,
                machine.available_bytes,
                table,
                bytes_on_a_device(found.kept_for_the_gradient(), mesh),
                needed,
            )
    text = Program(compiled.as_text())
    steps = text.update()
    exchanged = collectives(steps, mesh_shape)
    dtype, target = found.network.compute.dtype, found.target
    kernels = Kernels.of(steps) if target.is_gpu else None
    size = subject.alphabet.size
    chip = machine.chip
    return Report(
        machine=machine,
        network=found.network,
        mesh_shape=mesh_shape,
        num_streams=config.data.num_streams,
        memory=table,
        largest_num_streams=largest,
        collectives=exchanged,
        kernels=kernels,
        kernels_per_time_step=None if kernels is None else _per_time_step(kernels, config),
        on_chip=found.network.recurrence.on_chip(
            found.network.compute,
            config.data.window_length,
            config.data.num_streams // mesh_shape[0],
            config.model.hidden_size,
        ),
        ceiling=None
        if chip is None
        else ceiling(
            config, size, dtype.name, chip, mesh_shape, exchanged, machine.devices_of_a_host
        ),
        flops_per_byte=flops_per_byte(config, size),
        memory_bytes_per_byte=memory_bytes_per_byte(config, size, dtype.itemsize),
        compile_seconds=seconds,
        donated_bytes=int(compiled.memory_analysis().alias_size_in_bytes),
        product_dtypes=text.product_dtypes(),
    )


def resolved(config: Config, machine: Machine) -> Config:
    """Returns the configuration with what its automatic choices mean on a machine.

    Raises:
      UserError: the configuration does not suit the devices.
    """
    sizes = config.mesh.data, config.mesh.model
    mesh = meshes.make_mesh(config.data.num_streams, *sizes, machine.devices)
    network = Network.of(
        config.model,
        Target.of_mesh(mesh),
        num_streams=config.data.num_streams,
        model_devices=config.mesh.model,
    )
    values: dict[str, Any] = {
        "model.compute_dtype": network.compute.dtype.name,
        "mesh.data": mesh.shape[meshes.DATA_AXIS],
    }
    if config.mesh.model == 1:  # layers that are split have no other recurrence to choose
        values["model.recurrence"] = network.recurrence.name
    if config.model.command_buffers == "auto":
        values["model.command_buffers"] = "on" if xla.uses_command_buffers("auto") else "off"
    return config.replace(values)


def _compile(
    subject: Subject, machine: Machine, mesh: jax.sharding.Mesh
) -> tuple[program.Program, Any, MemoryTable, float]:
    """Returns the program, what it compiled to, its memory, and the seconds that it took.

    Raises:
      DoesNotCompile: with the compiler's reason.
    """
    data = subject.config.data
    streams = Streams(subject.num_bytes, data.num_streams, data.window_length)
    resident = subject.num_bytes <= machine.resident_bytes
    found = program.Program(subject.config, subject.alphabet, mesh)
    begin = time.monotonic()
    lowered = found.lower(streams, resident=resident)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        reason = in_one_line(error, 300)
        raise DoesNotCompile(
            f"{machine.name}: the dispatch does not compile: {reason}; try a smaller "
            "data.num_streams, or another model.recurrence"
        ) from error
    seconds = time.monotonic() - begin
    analysis = compiled.memory_analysis()
    return found, compiled, MemoryTable.of(found, streams, analysis, resident=resident), seconds


def _per_time_step(kernels: Kernels, config: Config) -> dict[str, float]:
    """Returns the kernels of the loops over time, for each time step and layer."""
    steps = config.data.window_length * config.model.num_layers
    return {"forward": kernels.forward / steps, "backward": kernels.backward / steps}
