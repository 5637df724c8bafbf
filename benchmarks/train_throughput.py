"""Measures training over a sweep of sizes: bytes/s, FLOP/s, memory, seconds to compile.

  python -m benchmarks.train_throughput
  python -m benchmarks.train_throughput --layers=3 --hidden=1024 --batch=64,256 --window=32,128
  python -m benchmarks.train_throughput --recurrence=scan,wavefront --dtype=float32,bfloat16

All combinations for one model and batch run interleaved, and large matrix products with them. The
shares are relative to the rate of these products in the same minutes.
"""

import itertools
import os
from collections.abc import Sequence

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_LAYERS = flags.DEFINE_list("layers", ["2"], "Numbers of layers.")
_HIDDEN = flags.DEFINE_list("hidden", ["128", "256", "512"], "Hidden sizes.")
_BATCH = flags.DEFINE_list("batch", ["64"], "Numbers of streams.")
_WINDOW = flags.DEFINE_list("window", ["64"], "Window lengths.")
_SHAPES = flags.DEFINE_list("shapes", [], "Instead of the sweep: 2x128-B32-T64,3x512-B64-T64, …")
_DTYPE = flags.DEFINE_list("dtype", ["float32"], "Compute dtypes.")
_RECURRENCE = flags.DEFINE_list("recurrence", [], "Recurrences; by default charlstm's choice.")
_CPU_DEVICES = flags.DEFINE_list("cpu_devices", ["0"], "Devices of the CPU; 0: charlstm's choice.")
_UPDATES_PER_DISPATCH = flags.DEFINE_list(
    "updates_per_dispatch", ["0"], "Updates in a jitted call; 0: what fills half a second."
)
_FIELDS = flags.DEFINE_multi_string("field", [], "SECTION.FIELD=VALUE of the configuration.")
_XLA_FLAGS = flags.DEFINE_multi_string("xla_flags", [], "NAME=XLA_FLAGS; all are tried.")
_MEMORY = flags.DEFINE_boolean("memory", True, "Ask the compiled program for its memory.")

_COLUMNS = (
    *comparison.COLUMNS[:5],
    *comparison.COLUMNS[6:8],
    Column("recurrence", "recurrence"),
    Column("device", "device"),
    Column("compile_seconds", "compile s", reporting.number(1)),
    Column("program_bytes", "program memory", reporting.short),
    Column("peak_rss_bytes", "peak memory", reporting.short),
)


def main(argv: Sequence[str]) -> None:
    """Runs the sweep that the flags ask for."""
    del argv
    report = common.new_report("train_throughput", "Training throughput")
    for shape in _shapes():
        entries = [_entry(shape, *choice) for choice in _choices()]
        entries += [comparison.product("jax", dtype, common.TINY.value) for dtype in _DTYPE.value]
        each = [(entry, shape) for entry in entries]
        for row, outcome in comparison.measure(report, str(shape), _COLUMNS, each):
            info = outcome.info
            row |= {key: info.get(key) for key in ("recurrence", "device", "compile_seconds")}
            if "temporary_bytes" in info:
                row["program_bytes"] = info["argument_bytes"] + info["temporary_bytes"]
        for dtype in _DTYPE.value:
            rows = report.tables[str(shape)]
            of_dtype = [row for row in rows if row["info"].get("dtype") == dtype]
            comparison.compare(of_dtype, comparison.product_name("jax", dtype))
        comparison.write(report, "bytes_per_second", "bytes/s", say=False)
    report.notes.append(
        "FLOP/s are analytic: 6·(L·8H² - 4H² + H·V) for a byte. Program memory is what XLA says of "
        "arguments and temporaries on one device; peak memory is the process's."
    )
    comparison.write(report, "bytes_per_second", "bytes/s")


def _shapes() -> list[Shape]:
    if _SHAPES.value:
        return common.shapes(_SHAPES.value)
    axes = (_LAYERS.value, _HIDDEN.value, _BATCH.value, _WINDOW.value)
    return [Shape(*map(int, sizes)) for sizes in itertools.product(*axes)]


def _choices() -> list[tuple[str, str, str, str, str]]:
    axes = (_DTYPE.value, _RECURRENCE.value or [""], _CPU_DEVICES.value)
    return list(itertools.product(*axes, _UPDATES_PER_DISPATCH.value, _XLA_FLAGS.value or [""]))


def _entry(
    shape: Shape, dtype: str, recurrence: str, devices: str, updates: str, xla_flags: str
) -> Entry:
    fields = common.fields(_FIELDS.value) | {"model.compute_dtype": dtype}
    words, environment = [comparison.OURS, dtype], {}
    if recurrence:
        fields["model.recurrence"] = recurrence
        words.append(recurrence)
    if int(devices):
        words.append(f"{devices} CPU devices")
    if int(updates):
        words.append(f"{updates} updates a dispatch")
    if xla_flags:
        name, _, their = xla_flags.partition("=")
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {their}".strip()
        words.append(name)
    return comparison.charlstm(
        shape,
        ", ".join(words),
        environment=environment,
        fields=fields,
        cpu_devices=int(devices),
        updates_per_dispatch=int(updates),
        memory=_MEMORY.value,
    )


if __name__ == "__main__":
    app.run(main)
