"""Measures whole training updates with each kernel, with charlstm's scan, and with PyTorch.

  python -m benchmarks.kernels.updates --shapes=3x1024-B64-T128,3x1024-B256-T128 --build=DIR

Interleaved runs in bfloat16, on this machine's GPU; all competitors train the same model.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import common
from benchmarks.interleaved import Entry
from benchmarks.kernels.checking import build_folder
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_SHAPES = flags.DEFINE_list("shapes", ["3x1024-B64-T128"], "Models and batches.")
_KERNELS = flags.DEFINE_list("kernels", ["cuda", "mosaic", "scan"], "In the place of the scan.")

# PyTorch's fastest forms on an H200: `precision` and `graph` of `torch_training`.
TORCH = (("bfloat16-parameters", True), ("float16-parameters", True))

_COLUMNS = (
    Column("contestant", "competitor"),
    Column("status", "status"),
    Column("ms_per_update", "ms per update", "{:.2f}".format),
    Column("nats", "nats", "{:.3f}".format),
)


def entries(shape: Shape, kernels: Sequence[str], build: Path) -> Iterator[Entry]:
    """Yields the competitors for a shape."""
    fields = {"model.compute_dtype": "bfloat16"}
    for kernel in kernels:
        spec = {"shape": shape.to_json(), "fields": fields, "kernel": kernel, "build": str(build)}
        yield Entry(kernel, ".kernel_training", spec)
    for precision, graph in TORCH:
        spec = {"shape": shape.to_json(), "inputs": "one-hot", "precision": precision}
        yield Entry(f"PyTorch {precision}", ".torch_training", {**spec, "graph": graph})


def main(argv: Sequence[str]) -> None:
    """Measures all shapes."""
    del argv
    report = common.new_report("kernels", "Training updates with persistent kernels")
    with build_folder() as build:
        for shape in common.shapes(_SHAPES.value):
            rows = report.table(str(shape), _COLUMNS)
            for outcome in common.compete(list(entries(shape, _KERNELS.value, build)), report):
                row: dict[str, Any] = {"contestant": outcome.entry.name, "status": outcome.status}
                if outcome.ok:
                    row |= {"ms_per_update": 1e3 / outcome.rate(), "nats": outcome.value("nats")}
                rows.append(row)
    report.write()


if __name__ == "__main__":
    app.run(main)
