"""charlstm itself, training: the configuration, state and compiled dispatch of `charlstm train`."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import workloads
from benchmarks.contestants import Contestant, versions_of
from charlstm import distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.training.conductor import SECONDS_PER_DISPATCH
from charlstm.training.program import Program, dtype_of, training_recurrence_of
from charlstm.training.state import TrainState
from charlstm.training.step import UpdateMetrics


class Training:
    """A run, built as `charlstm train` builds it, without its folder.

    Args:
      spec: `shape`, and if wanted `fields` (configuration fields by address), `cpu_devices` (0
        chooses as the command does), `updates_per_dispatch` (0: what fills half a second),
        `resident` (False reads windows on the host though the text is small), `memory` (True
        compiles once more to learn what the program needs), `mapped_bytes` (the text is a file of
        that size, mapped from disk; `path` names one).
      make_program: what is computed.
    """

    def __init__(self, spec: dict[str, Any], make_program: type[Program] = Program):
        self.shape = shape = workloads.Shape(**spec["shape"])
        self.text = workloads.mapped_text(spec) if "mapped_bytes" in spec else workloads.make_text()
        self.config = Config().replace(_fields(shape) | spec.get("fields", {}))
        model = self.config.model
        automatic = distributed.cpu_devices_for(
            model.hidden_size, shape.num_streams, shape.window_length
        )
        distributed.set_cpu_devices(spec.get("cpu_devices") or automatic)
        self.alphabet = Alphabet.of(model.alphabet, self.text)
        self.streams = Streams(len(self.text), shape.num_streams, shape.window_length)
        self.mesh = distributed.make_mesh(shape.num_streams)
        jax.set_mesh(self.mesh)
        program = make_program(self.config, self.alphabet, self.mesh)
        self.state: TrainState = program.initialise(jnp.uint32(0))
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
          The metrics of the last dispatch, on the host: everything before them is done.
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
        """The updates of each dispatch."""
        most = self._updates_per_dispatch
        if not most:
            # Benchmarks last a second or more: about what the loop arrives at.
            most = max(1, int(count * SECONDS_PER_DISPATCH))
        most = min(most, self._dispatch.max_updates)
        return [most] * (count // most) + ([count % most] if count % most else [])

    def input_seconds(self) -> float:
        """Seconds so far for which updates waited for their text."""
        return self._dispatch.input_seconds()

    def info(self) -> dict[str, Any]:
        """Facts for the report."""
        devices = self.mesh.devices.flat
        return {
            "versions": versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy"),
            "device": f"{self.mesh.size} × {devices[0].device_kind}",
            "dtype": jnp.dtype(dtype_of(self.config.model)).name,
            "recurrence": training_recurrence_of(self.config),
            "compile_seconds": self.compile_seconds,
            **self._memory,
        }

    def _compiled_memory(self) -> dict[str, int]:
        """Bytes on one device that the compiled program needs."""
        analysis = self._dispatch.memory_analysis()
        arguments, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
        return {"argument_bytes": arguments, "temporary_bytes": temporary}


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn is `count` updates; see `Training` for the spec."""
    return contestant(Training(spec))


def contestant(training: Training) -> Contestant:
    """Trains; a turn is `count` updates."""
    device = training.mesh.devices.flat[0]

    def turn(count: int) -> dict[str, float]:
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

    return Contestant(turn, training.info())


def _fields(shape: workloads.Shape) -> dict[str, Any]:
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
