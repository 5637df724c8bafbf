"""Trains as `charlstm train` does, but without a run folder."""

import time
from collections.abc import Sequence

import jax
import numpy as np

from charlstm.compilation.ceiling import Ceiling, ceiling
from charlstm.compilation.chips import chip_of_kind
from charlstm.compilation.counting import collectives
from charlstm.compilation.program_text import Program as ProgramText
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.errors import UserError
from charlstm.runtime import meshes
from charlstm.training.control import SECONDS_PER_DISPATCH
from charlstm.training.memory import MemoryTable, available_bytes, readable
from charlstm.training.program import Program
from charlstm.training.train_state import TrainState
from charlstm.training.update import UpdateMetrics


class Training:
    """Compiles the dispatch of `charlstm train`.

    Args:
      config: the experiment.
      text: uint8 [N], to train on.
      devices: to train with; None takes all.
      resident: True puts the text on the devices, False reads its windows on the host.
      updates_per_dispatch: 0 chooses about what the training loop arrives at.
      make_program: the class of the computation.

    Raises:
      UserError: the configuration does not suit the devices, or the text is too short.
    """

    def __init__(
        self,
        config: Config,
        text: np.ndarray,
        *,
        devices: Sequence[jax.Device] | None = None,
        resident: bool = True,
        updates_per_dispatch: int = 0,
        make_program: type[Program] = Program,
    ):
        self.config, self.text = config, text
        data = config.data
        self.alphabet = Alphabet.of(config.model.alphabet, text)
        self.streams = Streams(len(text), data.num_streams, data.window_length)
        self.mesh = meshes.make_mesh(data.num_streams, config.mesh.data, config.mesh.model, devices)
        self.step = 0
        self._updates_per_dispatch = updates_per_dispatch
        with jax.set_mesh(self.mesh):
            self._program = make_program(config, self.alphabet, self.mesh)
            self.network = self._program.network
            begin = time.perf_counter()
            self._dispatch = self._program.compile(
                self.streams, text, self._program.abstract_state(), resident=resident
            )
            self.compile_seconds = time.perf_counter() - begin

    def start(self) -> None:
        """Makes the state before the first update."""
        with jax.set_mesh(self.mesh):
            self.state: TrainState = self._program.initialize(0)

    def advance(self, count: int) -> UpdateMetrics:
        """Makes `count` updates as the training loop does, reading metrics one dispatch late.

        Returns:
          The metrics of the last dispatch, on the host; all updates are done by then.
        """
        waiting: UpdateMetrics | None = None
        for size in self._dispatches(count):
            self.state, metrics = self._dispatch(self.state, self.step, size)
            self.step += size
            if waiting is not None:
                jax.device_get(waiting)
            waiting = metrics
        last: UpdateMetrics = jax.device_get(waiting)
        return last

    def _dispatches(self, count: int) -> list[int]:
        """Returns the number of updates in each dispatch."""
        most = self._updates_per_dispatch
        if not most:
            # About what the training loop arrives at: a measured run lasts a second or more.
            most = max(1, int(count * SECONDS_PER_DISPATCH))
        most = min(most, self._dispatch.max_updates)
        return [most] * (count // most) + ([count % most] if count % most else [])

    def require_memory(self) -> MemoryTable:
        """Returns the bytes that the dispatch needs of a device.

        Raises:
          UserError: a device has less.
        """
        with jax.set_mesh(self.mesh):
            table = MemoryTable.of(
                self._program,
                self.streams,
                self._dispatch.memory_analysis(),
                resident=self._dispatch.resident,
            )
        available = available_bytes()
        if available is not None:
            # Devices that a CPU is split into share its memory, in use or not.
            available = available * jax.local_device_count() // self.mesh.size
            if table.total > available:
                raise UserError(
                    f"does not fit: an update needs {readable(table.total)} of each device, which "
                    f"has {readable(available)}"
                )
        return table

    def ceiling(self) -> Ceiling | None:
        """Returns the ceiling of the updates' speed; None if the chip's figures are not known."""
        device = self.mesh.devices.flat[0]
        chip = chip_of_kind(device.device_kind)
        if chip is None:
            return None
        mesh_shape = meshes.sizes_of(self.mesh)
        return ceiling(
            self.config,
            self.alphabet.size,
            self.network.compute.dtype.name,
            chip,
            mesh_shape,
            collectives(ProgramText(self._dispatch.as_text()).update(), mesh_shape),
            jax.local_device_count(),
        )


def cpu_devices_for(config: Config) -> int:
    """Returns how many devices the CPU had best be split into, as `charlstm train` chooses."""
    data, mesh = config.data, config.mesh
    return meshes.cpu_devices_for(
        config.model.hidden_size, data.num_streams, data.window_length, mesh.data, mesh.model
    )


def peak_bytes(device: jax.Device) -> int | None:
    """Returns the most bytes that a device has held so far; None if it does not say."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")
