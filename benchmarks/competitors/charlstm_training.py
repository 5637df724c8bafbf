"""Trains charlstm itself, with the configuration, state and dispatch of `charlstm train`."""

from typing import Any

import jax

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.benchmark import training
from charlstm.benchmark.fields import config_of
from charlstm.benchmark.shapes import Shape, text_of
from charlstm.runtime import meshes
from charlstm.training.program import Program


class Training(training.Training):
    """Trains what a spec describes, on all devices of its process.

    Args:
      spec: `shape`, and optionally `fields` (configuration fields by address), `cpu_devices` (0
        chooses as the command does), `updates_per_dispatch` (0: what fills half a second),
        `resident` (False reads windows on the host even if the text is small), `memory` (True
        reports what memory the program needs), `mapped_bytes` (the text is a file of that size,
        mapped from disk; `path` names one).
      make_program: the class of the computation.
    """

    def __init__(self, spec: dict[str, Any], make_program: type[Program] = Program):
        self.shape = shape = Shape(**spec["shape"])
        config = config_of(shape, spec.get("fields", {}))
        meshes.set_cpu_devices(spec.get("cpu_devices") or training.cpu_devices_for(config))
        super().__init__(
            config,
            workloads.mapped_text(spec) if "mapped_bytes" in spec else text_of(shape),
            resident=spec.get("resident", True),
            updates_per_dispatch=spec.get("updates_per_dispatch", 0),
            make_program=make_program,
        )
        jax.set_mesh(self.mesh)
        self.start()
        self._memory = self._compiled_memory() if spec.get("memory") else {}

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


def competitor(trained: Training) -> Competitor:
    """Makes a competitor of a training; a run makes `count` updates."""
    device = trained.mesh.devices.flat[0]

    def run(count: int) -> dict[str, float]:
        waited = trained.input_seconds()
        metrics = trained.advance(count)
        figures = {
            "nats": float(metrics.nats[0]),
            "input_seconds": trained.input_seconds() - waited,
        }
        peak = training.peak_bytes(device)
        if peak is not None:
            figures["device_peak_bytes"] = peak
        return figures

    return Competitor(run, trained.info())
