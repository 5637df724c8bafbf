"""Every recurrence against the same network in float64, on the device that is to be measured.

  python -m benchmarks.correctness
  python -m benchmarks.correctness --dtype=float32,bfloat16 --recurrence=scan

Speed is worth nothing without it. The exit code is 1 if one that runs here is wrong.
"""

import sys
import typing
from collections.abc import Sequence

from absl import app, flags

from benchmarks import common
from benchmarks.reporting import Column
from benchmarks.turns import Entry, take_turns
from benchmarks.workloads import Shape
from charlstm.config import field_types

_SHAPE = flags.DEFINE_string("shape", "3x64-B16-T32", "The model and its window.")
_RECURRENCE = flags.DEFINE_list("recurrence", [], "Recurrences; by default all there are.")
_DTYPE = flags.DEFINE_list("dtype", ["float32", "bfloat16"], "Compute dtypes.")

# The rounding of about T·L steps in the dtype; float32 products are exact to float32 here.
LIMITS = {"float32": 1e-5, "bfloat16": 5e-2}

_COLUMNS = (
    Column("recurrence", "recurrence"),
    Column("dtype", "dtype"),
    Column("status", "status"),
    Column("loss_error", "loss", "{:.1e}".format),
    Column("gradient_error", "gradients", "{:.1e}".format),
)


def main(argv: Sequence[str]) -> None:
    """Compares them all."""
    del argv
    report = common.new_report("correctness", "Recurrences against float64")
    rows = report.table(f"Relative errors, {_SHAPE.value}", _COLUMNS)
    shape = Shape.parse(_SHAPE.value).to_json()
    for recurrence in _RECURRENCE.value or all_recurrences():
        for dtype in _DTYPE.value:
            spec = {"shape": shape, "recurrence": recurrence, "dtype": dtype}
            name = f"{recurrence}, {dtype}"
            entry = Entry(name, ".recurrence_errors", spec, count=1, warm_up=0)
            (outcome,) = take_turns([entry], 1, 0.0, common.say)
            report.learn(outcome.info)
            row = {"recurrence": recurrence, "dtype": dtype, "status": outcome.status}
            if outcome.ok:
                row |= outcome.values[0]
                if not outcome.values[0]["gradient_error"] <= LIMITS[dtype]:
                    row["status"] = f"wrong: beyond {LIMITS[dtype]:.0e}"
            rows.append(row)
    report.write()
    sys.exit(any(row["status"].startswith("wrong") for row in rows))


def all_recurrences() -> list[str]:
    """The names that `model.recurrence` takes, but for the one that chooses among them."""
    names = typing.get_args(field_types()["model.recurrence"])
    return [name for name in names if name != "auto"]


if __name__ == "__main__":
    app.run(main)
