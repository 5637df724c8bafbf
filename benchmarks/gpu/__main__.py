"""Measures on one GPU within a budget of seconds, the parts of most worth first.

  python -m benchmarks.gpu --budget_seconds=400 --out=DIR
  python -m benchmarks.gpu --budget_seconds=200 --out=DIR           # what is missing
  python -m benchmarks.gpu --out=DIR --parts=peers,tune --again
  python -m benchmarks.gpu --out=DIR --tiny                         # a rehearsal, on a CPU too

A part runs in a process of its own. It is begun if its share of the budget fits into what is left,
and ended when the share is over. DIR gets results.jsonl (a line a result, at once), summary.txt,
log-PART.txt, profiles, and in the end gpu.md and gpu.json. Parts, their shares, and what they
measure; those behind `recipe` run only if --parts names them:

"""

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks import common
from benchmarks.gpu import parts
from benchmarks.gpu.results import Results, about_this_machine
from benchmarks.gpu.schedule import Schedule
from charlstm.errors import UserError

__doc__ = f"{__doc__}{parts.table()}\n"

_BUDGET = flags.DEFINE_float("budget_seconds", 400.0, "For all parts together.", 1.0)
_PARTS = flags.DEFINE_list("parts", [], "Parts to run; by default all of the usual ones.")
_MODEL = flags.DEFINE_string("model", "3x1024", "Layers x hidden size.")
_BATCHES = flags.DEFINE_list("batches", ["64", "256", "1024"], "Numbers of streams.")
_WINDOW = flags.DEFINE_integer("window", 128, "Window length.", 1)
_AGAIN = flags.DEFINE_boolean("again", False, "Measure again what has a result from before.")

flags.set_default(common.OUT, "runs/gpu")


def main(argv: Sequence[str]) -> None:
    """Runs the parts; the exit code is 1 if something was not reached, 2 if a flag is wrong."""
    begin = time.monotonic()
    del argv
    try:
        chosen, settings = parts.named(_PARTS.value), _settings()
        about = {**about_this_machine(), "sizes": f"{settings.model}-T{settings.window}"}
        results = Results(Path(common.OUT.value).absolute(), about)
    except UserError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    schedule = Schedule(settings, results, begin + _BUDGET.value, _AGAIN.value)
    missing = schedule.run(chosen)
    print((results.folder / "gpu.md").read_text())
    sys.exit(bool(missing))


def _settings() -> parts.Settings:
    """Returns the sizes that the flags ask for.

    Raises:
      UserError: they are no sizes.
    """
    if common.TINY.value:
        return parts.Settings("2x16", (4,), 8, tiny=True)
    numbers = [text.strip() for text in _BATCHES.value]
    if not numbers or not all(text.isdecimal() and int(text) for text in numbers):
        raise UserError(f"--batches={','.join(_BATCHES.value)} must be numbers such as 64,256")
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", _MODEL.value):
        raise UserError(f"--model={_MODEL.value} must look like 3x1024")
    return parts.Settings(_MODEL.value, tuple(map(int, numbers)), _WINDOW.value)


if __name__ == "__main__":
    app.run(main)
