"""Trains charlstm itself, with the configuration, state and dispatch of `charlstm train`."""

import time
from typing import Any

import jax

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.runtime import meshes
from charlstm.training.control import SECONDS_PER_DISPATCH
from charlstm.training.program import Program
from charlstm.training.train_state import TrainState
from charlstm.training.update import UpdateMetrics


class Training:
    """Builds a run as `charlstm train` does, but without a run folder.

    Args:
      spec: `shape`, and optionally `fields` (configuration fields by address), `cpu_devices` (0
        chooses as the command does), `updates_per_dispatch` (0: what fills half a second),
        `resident` (False reads windows on the host even if the text is small), `memory` (True
        compiles once more to find out what memory the program needs), `mapped_bytes` (the text is
        a file of that size, mapped from disk; `path` names one).
      make_program: the class of the computation.
    """

    def __init__(self, spec: dict[str, Any], make_program: type[Program] = Program):
        self.shape = shape = workloads.Shape(**spec["shape"])
        self.text = workloads.mapped_text(spec) if "mapped_bytes" in spec else workloads.make_text()
        self.config = Config().replace(fields_of(shape) | spec.get("fields", {}))
        model = self.config.model
        automatic = meshes.cpu_devices_for(
            model.hidden_size, shape.num_streams, shape.window_length
        )
        meshes.set_cpu_devices(spec.get("cpu_devices") or automatic)
        self.alphabet = Alphabet.of(model.alphabet, self.text)
        self.streams = Streams(len(self.text), shape.num_streams, shape.window_length)
        self.mesh = meshes.make_mesh(shape.num_streams)
        jax.set_mesh(self.mesh)
        program = make_program(self.config, self.alphabet, self.mesh)
        self.network = program.network
        self.state: TrainState = program.initialize(0)
        self.step = 0
        begin = time.perf_counter()
        self._dispatch = program.compile(
            self.streams, self.text, self.state, resident=spec.get("resident", True)
        )
        self.compile_seconds = time.perf_counter() - begin
        self._updates_per_dispatch = spec.get("updates_per_dispatch", 0)
        self._memory = self._compiled_memory() if spec.get("memory") else {}

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

    def input_seconds(self) -> float:
        """Returns for how many seconds so far updates have waited for their text."""
        return self._dispatch.input_seconds()

    def info(self) -> dict[str, Any]:
        """Returns facts for the report."""
        devices = self.mesh.devices.flat
        return {
            "versions": versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy"),
            "device": f"{self.mesh.size} × {devices[0].device_kind}",
            "dtype": self.network.compute.dtype.name,
            "recurrence": self.network.describe(),
            "compile_seconds": self.compile_seconds,
            **self._memory,
        }

    def _compiled_memory(self) -> dict[str, int]:
        """Returns the bytes that the compiled program needs on one device."""
        analysis = self._dispatch.memory_analysis()
        arguments, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
        return {"argument_bytes": arguments, "temporary_bytes": temporary}


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training, with `count` updates in a run; see `Training` for the spec."""
    return competitor(Training(spec))


def competitor(training: Training) -> Competitor:
    """Makes a competitor of a training; a run makes `count` updates."""
    device = training.mesh.devices.flat[0]

    def run(count: int) -> dict[str, float]:
        waited = training.input_seconds()
        metrics = training.advance(count)
        figures = {
            "nats": float(metrics.nats[0]),
            "input_seconds": training.input_seconds() - waited,
        }
        memory = device.memory_stats() or {}
        if "peak_bytes_in_use" in memory:
            figures["device_peak_bytes"] = memory["peak_bytes_in_use"]
        return figures

    return Competitor(run, training.info())


def fields_of(shape: workloads.Shape) -> dict[str, Any]:
    """Returns the configuration of a shape: values by address."""
    return {
        "model.num_layers": shape.num_layers,
        "model.hidden_size": shape.hidden_size,
        "model.alphabet": "bytes" if shape.num_symbols == 256 else "corpus",
        "data.num_streams": shape.num_streams,
        "data.window_length": shape.window_length,
        "optimizer.name": "adam",
        "optimizer.learning_rate": workloads.LEARNING_RATE,
        "optimizer.b1": workloads.BETA_1,
        "optimizer.b2": workloads.BETA_2,
        "optimizer.epsilon": workloads.EPSILON,
        "optimizer.clip_norm": workloads.CLIP_NORM,
        "optimizer.schedule": "constant",
        "optimizer.warmup_updates": 0,
    }
