"""Measures how many milliseconds a save delays training, and how long restoring takes.

  python -m benchmarks.checkpoint_stall
  python -m benchmarks.checkpoint_stall --shapes=3x1024-B64-T32 --folder=/mnt/disk

A measured run makes the same number of updates twice: without a save, and with a save at their
beginning.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column

_SHAPES = flags.DEFINE_list(
    "shapes", ["2x128-B32-T64", "3x512-B64-T64", "3x1024-B64-T32"], "What is trained and saved."
)
_FOLDER = flags.DEFINE_string("folder", None, "Where to write; by default the temporary folder.")

_COLUMNS = (
    Column("shape", "shape"),
    Column("status", "status"),
    Column("checkpoint_bytes", "checkpoint", reporting.short),
    Column("stall_ms", "held up ms", reporting.number(0)),
    Column("stall_ms_range", "lowest – highest", lambda span: f"{span[0]:.0f} – {span[1]:.0f}"),
    Column("call_ms", "of it in the call", reporting.number(0)),
    Column("finish_seconds", "on disk after s", reporting.number(2)),
    Column("restore_seconds", "restore s", reporting.number(2)),
    Column("updates_per_turn", "updates"),
    Column("plain_seconds", "their seconds", reporting.number(2)),
)


def main(argv: Sequence[str]) -> None:
    """Measures every shape."""
    del argv
    report = common.new_report("checkpoint_stall", "What a checkpoint costs")
    rows = report.table("Saving and restoring", _COLUMNS)
    for shape in common.shapes(_SHAPES.value):
        common.say(str(shape))
        spec: dict[str, Any] = {"shape": shape.to_json()}
        if _FOLDER.value:
            spec["folder"] = _FOLDER.value
        entry = Entry(
            str(shape), ".checkpointing", spec, environment=comparison.ENVIRONMENT, warm_up=0
        )
        (outcome,) = common.compete([entry], report)
        row: dict[str, Any] = {"shape": str(shape), "status": outcome.status}
        if outcome.ok:
            stalls = [1e3 * (values["saving"] - values["plain"]) for values in outcome.values]
            row |= {
                "checkpoint_bytes": outcome.value("checkpoint_bytes"),
                "stall_ms": statistics.median(stalls),
                "stall_ms_range": (min(stalls), max(stalls)),
                "call_ms": 1e3 * outcome.value("call"),
                "finish_seconds": outcome.value("finish"),
                "restore_seconds": outcome.value("restore"),
                "updates_per_turn": outcome.count,
                "plain_seconds": outcome.value("plain"),
                "turns": outcome.values,
            }
        rows.append(row)
    report.notes.append(
        "Held up is the time of the updates with a save less that of as many without: writing "
        "goes on beside training, and on a CPU both want the cores. Where it is below the spread "
        "of the updates' own time, it is noise."
    )
    report.write(lambda figure: _draw(figure, rows))


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axis = figure.subplots()
    done = [row for row in rows if "stall_ms" in row]
    names = [row["shape"] for row in done]
    axis.bar(names, [row["stall_ms"] for row in done], width=0.5, label="training held up")
    axis.bar(names, [row["call_ms"] for row in done], width=0.3, label="in the call")
    axis.set_ylabel("ms")
    axis.legend()


if __name__ == "__main__":
    app.run(main)
