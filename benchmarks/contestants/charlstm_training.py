"""charlstm itself, training: the configuration, state and compiled dispatch of `charlstm train`."""

import contextlib
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks import workloads
from benchmarks.contestants import Contestant, versions_of
from charlstm import distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.streams import Streams
from charlstm.training import run
from charlstm.training.loop import MAX_UPDATES_PER_DISPATCH, SECONDS_PER_DISPATCH
from charlstm.training.optimizer import make_optimizer, make_schedule
from charlstm.training.state import TrainState, init_state
from charlstm.training.step import Forward, UpdateMetrics, make_dispatch, make_update

NUM_UPDATES = 10**6  # of the schedule, which is constant


class Training:
    """A run, built as `charlstm train` builds it, without its folder.

    Args:
      spec: `shape`, and if wanted `fields` (configuration fields by address), `cpu_devices` (0
        chooses as the command does), `updates_per_dispatch` (0: what fills half a second),
        `resident` (False reads windows on the host though the text is small), `memory` (True
        compiles once more to learn what the program needs).
    """

    def __init__(self, spec: dict[str, Any]):
        self.shape = shape = workloads.Shape(**spec["shape"])
        self.text = workloads.make_text()
        self.config = Config().replace(_fields(shape) | spec.get("fields", {}))
        model = self.config.model
        automatic = distributed.cpu_devices_for(model.hidden_size, shape.num_streams)
        distributed.set_cpu_devices(spec.get("cpu_devices") or automatic)
        self.alphabet = Alphabet.of(model.alphabet, self.text)
        self.streams = Streams(len(self.text), shape.num_streams, shape.window_length)
        self.mesh = distributed.make_mesh(shape.num_streams)
        jax.set_mesh(self.mesh)
        self.optimizer = make_optimizer(self.config.optimizer)
        self.state: TrainState = jax.jit(self.initialise)(jnp.uint32(0))
        self.step = 0
        table = None if self.alphabet.kind == "bytes" else jnp.asarray(self.alphabet.encode_table)
        forward = Forward(
            compute_dtype=run.dtype_of(model),
            recurrence_name=run.recurrence_of(model),
            dropout=model.dropout,
            dropout_kind=model.dropout_kind,
            encode_table=table,
        )
        schedule = make_schedule(self.config.optimizer, NUM_UPDATES)
        update = make_update(forward, self.optimizer, schedule)
        begin = time.perf_counter()
        # A text of more bytes than this is read on the host.
        host = mock.patch.object(run, "DEVICE_RESIDENT_BYTES", 0)
        with contextlib.nullcontext() if spec.get("resident", True) else host:
            self._dispatch = run.compile_dispatch(
                update, self.streams, self.text, self.state, self.mesh
            )
        self.compile_seconds = time.perf_counter() - begin
        self._updates_per_dispatch = spec.get("updates_per_dispatch", 0)
        self._memory = self._compiled_memory(update) if spec.get("memory") else {}

    def initialise(self, seed: jax.Array) -> TrainState:
        """The state before the first update."""
        sizes = self.alphabet.size, self.shape.num_streams
        axis = distributed.DATA_AXIS
        return init_state(self.config.model, *sizes, self.optimizer, seed, axis=axis)

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
        most = min(most, MAX_UPDATES_PER_DISPATCH)
        return [most] * (count // most) + ([count % most] if count % most else [])

    def info(self) -> dict[str, Any]:
        """Facts for the report."""
        devices = self.mesh.devices.flat
        return {
            "versions": versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy"),
            "device": f"{self.mesh.size} × {devices[0].device_kind}",
            "dtype": jnp.dtype(run.dtype_of(self.config.model)).name,
            "recurrence": run.recurrence_of(self.config.model),
            "compile_seconds": self.compile_seconds,
            **self._memory,
        }

    def _compiled_memory(self, update: Any) -> dict[str, int]:
        """Bytes on one device that the compiled program needs."""
        dispatch = make_dispatch(update, self.streams, MAX_UPDATES_PER_DISPATCH, on_device=True)
        by_stream = distributed.split_streams(self.mesh, axis=0, ndim=1)
        first = jax.device_put(self.streams.first_places(), by_stream)
        whole = distributed.replicated(self.mesh)
        numbers = jax.device_put((jnp.int32(0), jnp.uint32(0), self.text), whole)
        compiled = dispatch.lower(self.state, *numbers[:2], first, numbers[2]).compile()
        analysis = compiled.memory_analysis()
        arguments, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
        return {"argument_bytes": arguments, "temporary_bytes": temporary}


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn is `count` updates; see `Training` for the spec."""
    training = Training(spec)
    device = training.mesh.devices.flat[0]

    def turn(count: int) -> dict[str, float]:
        metrics = training.advance(count)
        figures = {"nats": float(metrics.nats[0])}
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
