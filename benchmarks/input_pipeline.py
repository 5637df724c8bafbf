"""Measures how fast windows of text are delivered, and what share of an update that takes.

  python -m benchmarks.input_pipeline
  python -m benchmarks.input_pipeline --shapes=3x1024-B256-T128 --path=enwik8

A text that fits is kept on the device, and windows are gathered there. A larger text is read from a
memory-mapped file by a thread, one dispatch (one jitted call of several updates) ahead. Both are
timed alone and in training. `waited` is the share of the training time for which the loop waited
for its next windows.
"""

from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_SHAPES = flags.DEFINE_list("shapes", ["2x128-B32-T64", "3x512-B64-T64"], "What is trained.")
_TEXT_BYTES = flags.DEFINE_integer("text_bytes", 10**9, "Size of the mapped file.", 1)
_PATH = flags.DEFINE_string("path", None, "A file to map instead of a temporary one.")

_COLUMNS = (
    Column("contestant", "what"),
    Column("status", "status"),
    Column("bytes_per_second", "bytes/s", reporting.short),
    Column("bytes_per_second_range", "lowest – highest", reporting.span),
    Column("ms_per_update", "ms/window", reporting.number(4)),
    Column("share_of_update", "of an update", lambda share: f"{share:.3%}"),
    Column("waited_share", "waited", lambda share: f"{share:.3%}"),
    Column("peak_rss_bytes", "peak memory", reporting.short),
)


def main(argv: Sequence[str]) -> None:
    """Measures every shape."""
    del argv
    report = common.new_report("input_pipeline", "Delivering windows of text")
    for shape in common.shapes(_SHAPES.value):
        entries = [(entry, shape) for entry in _entries(shape)]
        for row, outcome in comparison.measure(report, str(shape), _COLUMNS, entries):
            if outcome.ok and "input_seconds" in outcome.values[0]:
                waited = sum(values["input_seconds"] for values in outcome.values)
                row["waited_share"] = waited / sum(outcome.seconds)
        comparison.relate(report.tables[str(shape)], "ms_per_update", "share_of_update")
    report.notes.append(
        "The mapped file is in the page cache: what the disk gives on a first reading is not "
        "measured. An update is that of the first line."
    )
    comparison.write(report, "ms_per_update", "ms per window")


def _entries(shape: Shape) -> list[Entry]:
    spec: dict[str, Any] = {"shape": shape.to_json(), "mapped_bytes": _TEXT_BYTES.value}
    if _PATH.value:
        spec["path"] = _PATH.value
    mapped = {name: value for name, value in spec.items() if name != "shape"}
    return [
        comparison.charlstm(shape, "training, text on the device"),
        comparison.charlstm(shape, "training, text on disk", resident=False, **mapped),
        *(
            Entry(
                f"windows alone, {place}",
                ".windows",
                spec | {"source": source},
                environment=comparison.ENVIRONMENT,
            )
            for place, source in (("on the device", "device"), ("from a mapped file", "host"))
        ),
    ]


if __name__ == "__main__":
    app.run(main)
