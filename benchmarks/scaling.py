"""Measures training on 1, 2, 4, 8 devices, with a fixed batch and with one that grows with them.

  python -m benchmarks.scaling
  python -m benchmarks.scaling --shapes=3x1024-B512-T128 --devices=1,2,4,8

Devices simulated on the CPU have tables of their own. With more simulated devices than cores, these
show what sharing the batch costs, and nothing about what real devices would gain. Real devices
(GPUs) are measured where there are two or more.
"""

from collections.abc import Sequence

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_SHAPES = flags.DEFINE_list("shapes", ["2x128-B64-T64", "2x512-B64-T64"], "What is trained.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "Numbers of devices.")
_WEAK = flags.DEFINE_boolean("weak", True, "Also with a batch for each device.")

_COLUMNS = (
    Column("contestant", "devices"),
    Column("status", "status"),
    Column("bytes_per_second", "bytes/s", reporting.short),
    Column("bytes_per_second_range", "lowest – highest", reporting.span),
    Column("ms_per_update", "ms/update", reporting.number(2)),
    Column("times_one", "times one device", reporting.ratio),
)


def main(argv: Sequence[str]) -> None:
    """Measures every shape on every kind of device."""
    del argv
    report = common.new_report("scaling", "Training on several devices")
    num_gpus = len(reporting.machine()["gpus"])
    every = [int(count) for count in _DEVICES.value]
    kinds = {"simulated": every}
    if num_gpus > 1:
        kinds["real"] = [count for count in every if count <= num_gpus]
    else:
        report.notes.append("No real devices: this machine has fewer than two GPUs.")
    for shape in common.shapes(_SHAPES.value):
        for kind, counts in kinds.items():
            _measure(shape, kind, counts, report)
    comparison.write(report, "bytes_per_second", "bytes/s")


def _measure(shape: Shape, kind: str, counts: list[int], report: reporting.Report) -> None:
    """Adds the tables of a shape on one kind of device, `simulated` or `real`."""
    where = {"simulated": "simulated devices, CPU", "real": "real devices, GPUs"}[kind]
    ways = {f"{shape} shared out, {where}": [shape] * len(counts)}
    if _WEAK.value:
        ways[f"{shape} for each device, {where}"] = [_grown(shape, count) for count in counts]
    simulated = kind == "simulated"
    for heading, shapes in ways.items():
        entries = [(_entry(s, n, simulated), s) for s, n in zip(shapes, counts, strict=True)]
        for row, _ in comparison.measure(report, heading, _COLUMNS, entries):
            row["simulated"] = simulated
        comparison.relate(report.tables[heading], "bytes_per_second", "times_one")


def _grown(shape: Shape, count: int) -> Shape:
    batch = shape.num_streams * count
    return Shape(shape.num_layers, shape.hidden_size, batch, shape.window_length, shape.num_symbols)


def _entry(shape: Shape, count: int, simulated: bool) -> Entry:
    if simulated:
        environment = {"JAX_PLATFORMS": "cpu"}
    else:
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))}
    return comparison.charlstm(shape, str(count), cpu_devices=count, environment=environment)


if __name__ == "__main__":
    app.run(main)
