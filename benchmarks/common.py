"""Flags that every benchmark has, and the rhythm of its turns."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.reporting import Report
from benchmarks.turns import Entry, Outcome, take_turns
from benchmarks.workloads import Shape

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder for JSON, table and picture.")
_NAME = flags.DEFINE_string("name", None, "Of the files; by default the benchmark's.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each contestant.", 1)
TURN_SECONDS = flags.DEFINE_float("turn_seconds", 1.5, "About how long a turn takes.", 0.0)
TINY = flags.DEFINE_boolean("tiny", False, "Rehearse: tiny products and copies to compare with.")


def new_report(name: str, title: str) -> Report:
    """The report of a benchmark, in the folder that `--out` names, under its name or `--name`."""
    return Report(_NAME.value or name, title, Path(OUT.value))


def compete(entries: Sequence[Entry], report: Report) -> list[Outcome]:
    """Lets the contestants take their turns; the report learns their versions and devices."""
    outcomes = take_turns(entries, ROUNDS.value, TURN_SECONDS.value, say)
    for outcome in outcomes:
        report.learn(outcome.info)
    return outcomes


def say(text: str) -> None:
    """Tells on standard error what is going on."""
    print(text, file=sys.stderr, flush=True)


def shapes(texts: Iterable[str]) -> list[Shape]:
    """The shapes that a flag lists."""
    return [Shape.parse(text) for text in texts]


def fields(texts: Iterable[str]) -> dict[str, Any]:
    """The configuration's fields that a flag lists as `section.field=value`, by their addresses."""
    return dict(text.split("=", 1) for text in texts)
