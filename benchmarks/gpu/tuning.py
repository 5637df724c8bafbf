"""Trains with charlstm in several variants, one after another in one process."""

import collections
import glob
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from benchmarks.competitors.charlstm_training import Training
from benchmarks.gpu.work import Work
from charlstm.benchmark.windows import count_for
from charlstm.model import time_loop
from charlstm.runtime import xla

ROUNDS, ROUND_SECONDS = 3, 0.25
_KERNELS_SHOWN = 25


def measure(work: Work) -> None:
    """Measures the time of an update, and the memory that it takes."""
    default = time_loop.UNROLL_ON_GPU
    for name, variant in work.turns():
        xla.set_command_buffers(variant.get("command_buffers", "off"))
        time_loop.UNROLL_ON_GPU = variant.get("unroll") or default
        with work.result(name) as figures:
            file = f"profile-{work.part}-{name.replace(' ', '-')}.txt"
            figures |= _figures(variant, Path(work.folder) / file)
        jax.clear_caches()


def _figures(variant: dict[str, Any], profile: Path) -> dict[str, Any]:
    training = Training(variant)
    figures = _speed(training) | _memory(training)
    if variant.get("profile"):
        profile.write_text(_profile(training))
    return figures


def _speed(training: Training) -> dict[str, Any]:
    """Returns the median over a few short runs."""
    nats = math.nan

    def run(count: int) -> float:
        nonlocal nats
        begin = time.perf_counter()
        nats = float(training.advance(count).nats[0])
        return time.perf_counter() - begin

    count = count_for(run, ROUND_SECONDS)
    seconds = [run(count) / count for _ in range(ROUNDS)]
    rate = training.shape.bytes_per_update / statistics.median(seconds)
    info = training.info()
    return {
        "bytes_per_second": rate,
        "ms_per_update": 1e3 * statistics.median(seconds),
        "all_ms_per_update": [1e3 * value for value in seconds],
        "flops_per_second": rate * training.shape.training_flops_per_byte,
        "nats": nats,
        **{key: info[key] for key in ("device", "dtype", "recurrence", "compile_seconds")},
    }


def _memory(training: Training) -> dict[str, Any]:
    """Returns what XLA says that the program needs, and the most that the device has held."""
    info = training.info()
    needed = info["argument_bytes"] + info["temporary_bytes"]
    figures = {"needed_bytes": needed, "temporary_bytes": info["temporary_bytes"]}
    peak = (training.mesh.devices.flat[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak is not None:  # CPUs do not say
        figures |= {"device_peak_bytes": peak, "peak_to_needed": peak / needed}
    return figures


def _profile(training: Training, updates: int = 2) -> str:
    """Returns the kernels of some updates, those that take longest in all first."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            training.advance(updates)
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        data = ProfileData.from_file(file)
    planes = [plane for plane in data.planes if "GPU" in plane.name] or list(data.planes)
    nanoseconds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in planes:
        for line in plane.lines:
            if "GPU" in plane.name and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                nanoseconds[event.name] += event.duration_ns
                calls[event.name] += 1
    lines = [
        f"{sum(nanoseconds.values()) / 1e6:.2f} ms, {calls.total()} kernels, {updates} updates"
    ]
    for kernel, total in nanoseconds.most_common(_KERNELS_SHOWN):
        each = f"{calls[kernel]:6} × {total / calls[kernel] / 1e3:8.2f} µs"
        lines.append(f"{total / 1e6:9.3f} ms {each} {kernel[:120]}")
    return "\n".join(lines) + "\n"
