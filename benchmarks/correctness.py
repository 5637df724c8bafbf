"""Compares every recurrence with the same network in float64, on the device to be measured.

  python -m benchmarks.correctness
  python -m benchmarks.correctness --dtype=float32,bfloat16 --recurrence=scan

Speed is worth nothing if the result is wrong. The exit code is 1 if a recurrence that runs here is.
"""

import itertools
import sys
import typing
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common
from benchmarks.interleaved import Entry, run_interleaved
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape
from charlstm.config import field_types

_SHAPE = flags.DEFINE_string("shape", "3x64-B16-T32", "The model and its window.")
_RECURRENCE = flags.DEFINE_list("recurrence", [], "Recurrences; by default all there are.")
_DTYPE = flags.DEFINE_list("dtype", ["float32", "bfloat16"], "Compute dtypes.")

# Allows for the rounding of about T·L steps in the dtype. float32 products are exact here.
LIMITS = {"float32": 1e-5, "bfloat16": 5e-2}

_COLUMNS = (
    Column("recurrence", "recurrence"),
    Column("residuals", "kept for the gradient"),
    Column("dtype", "dtype"),
    Column("status", "status"),
    Column("loss_error", "loss", "{:.1e}".format),
    Column("gradient_error", "gradients", "{:.1e}".format),
)


def main(argv: Sequence[str]) -> None:
    """Compares every recurrence in every dtype."""
    del argv
    report = common.new_report("correctness", "Recurrences against float64")
    rows = report.table(f"Relative errors, {_SHAPE.value}", _COLUMNS)
    shape = Shape.parse(_SHAPE.value).to_json()
    for recurrence in _RECURRENCE.value or all_recurrences():
        for residuals, dtype in itertools.product(residuals_of(recurrence), _DTYPE.value):
            choice = {"recurrence": recurrence, "residuals": residuals, "dtype": dtype}
            spec = {"shape": shape, **choice}
            name = ", ".join(choice.values())
            entry = Entry(name, ".recurrence_errors", spec, count=1, warm_up=0)
            (outcome,) = run_interleaved([entry], 1, 0.0, common.say)
            report.learn(outcome.info)
            row: dict[str, Any] = {**choice, "status": outcome.status}
            if outcome.ok:
                row |= outcome.values[0]
                if not outcome.values[0]["gradient_error"] <= LIMITS[dtype]:
                    row["status"] = f"wrong: beyond {LIMITS[dtype]:.0e}"
            rows.append(row)
    report.write()
    sys.exit(any(row["status"].startswith("wrong") for row in rows))


def all_recurrences() -> list[str]:
    """Returns the names that `model.recurrence` takes, except `auto`, which chooses among them."""
    names = typing.get_args(field_types()["model.recurrence"])
    return [name for name in names if name != "auto"]


def residuals_of(recurrence: str) -> tuple[str, ...]:
    """Returns the values of `model.residuals` that a recurrence takes."""
    every: tuple[str, ...] = typing.get_args(field_types()["model.residuals"])
    return every if recurrence == "scan" else every[:1]


if __name__ == "__main__":
    app.run(main)
