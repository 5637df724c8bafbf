"""Defines the flags of every benchmark, and runs competitors as the flags say."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.interleaved import Entry, Outcome, run_interleaved
from benchmarks.reporting import Report
from charlstm.benchmark.shapes import Shape

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder for JSON, table and picture.")
_NAME = flags.DEFINE_string("name", None, "Of the files; by default the benchmark's.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Measured runs of each competitor.", 1)
# The commands of the committed results name this flag.
RUN_SECONDS = flags.DEFINE_float("turn_seconds", 1.5, "About how long a measured run takes.", 0.0)
TINY = flags.DEFINE_boolean("tiny", False, "Rehearse: tiny products and copies to compare with.")


def new_report(name: str, title: str) -> Report:
    """Creates a benchmark's report in the folder of `--out`, under its own name or `--name`."""
    return Report(_NAME.value or name, title, Path(OUT.value))


def compete(entries: Sequence[Entry], report: Report) -> list[Outcome]:
    """Runs competitors interleaved, and adds their versions and devices to the report."""
    outcomes = run_interleaved(entries, ROUNDS.value, RUN_SECONDS.value, say)
    for outcome in outcomes:
        report.learn(outcome.info)
    return outcomes


def say(text: str) -> None:
    """Prints a progress message to standard error."""
    print(text, file=sys.stderr, flush=True)


def shapes(texts: Iterable[str]) -> list[Shape]:
    """Parses the shapes that a flag lists."""
    return [Shape.parse(text) for text in texts]


def fields(texts: Iterable[str]) -> dict[str, Any]:
    """Parses a flag's `section.field=value` into values of the configuration, by address."""
    return dict(text.split("=", 1) for text in texts)
