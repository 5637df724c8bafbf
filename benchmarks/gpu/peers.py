"""Measures competitors in turn (A B A B …), one process for each library and several in each.

The processes live as long as the part. A group, such as a batch, is prepared by both at the same
time, measured in short runs that take turns, written, and freed.
"""

import contextlib
import itertools
from typing import Any

from benchmarks import comparison
from benchmarks.gpu.tuning import ROUND_SECONDS, ROUNDS
from benchmarks.gpu.work import Work
from benchmarks.interleaved import (
    RUN_LIMIT,
    START_LIMIT,
    Child,
    Entry,
    Outcome,
    Refusal,
    reasons,
    start,
)
from charlstm.benchmark.shapes import Shape
from charlstm.benchmark.windows import count_for

_COPIED = "copy_bytes_per_second"
_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


class Processes(contextlib.ExitStack):
    """Has a process for each library; one that has died is started again."""

    def __init__(self) -> None:
        super().__init__()
        self._children: dict[str, Child] = {}

    def of(self, entry: Entry) -> Child:
        """Returns the process of a competitor."""
        library = "torch" if "torch" in entry.module else "jax"
        if library not in self._children or self._children[library].has_ended:
            self._children[library] = self.enter_context(start(entry))
        return self._children[library]

    def run(self, entries: list[Entry]) -> list[Outcome]:
        """Measures competitors in turn; one that fails has the reason as its status."""
        turns = [(self.of(entry), Outcome(entry)) for entry in entries]
        for child, outcome in turns:
            child.prepare(outcome.entry, outcome.entry.name)
        for child, outcome in turns:
            with reasons(outcome):
                outcome.info = child.read(START_LIMIT)["info"]
        able = [(child, outcome) for child, outcome in turns if outcome.ok]
        for child, outcome in able:
            with reasons(outcome):
                outcome.count = count_for(child.seconds_of(outcome.entry.name), ROUND_SECONDS)
        for _, (child, outcome) in itertools.product(range(ROUNDS), able):
            if outcome.ok:
                with reasons(outcome):
                    reply = child.run(outcome.count, 1, outcome.entry.name)
                    outcome.seconds.append(reply["seconds"])
                    outcome.values.append(reply["values"])
        for child in {id(child): child for child, _ in turns}.values():
            with contextlib.suppress(Refusal):
                child.send({"forget": True})
                child.read(RUN_LIMIT)
        return [outcome for _, outcome in turns]


def measure(work: Work) -> None:
    """Measures the groups in which something is missing, whole: only figures of one run compare."""
    groups: dict[int, list[str]] = {}
    for name, variant in work.variants.items():
        groups.setdefault(variant["group"], []).append(name)
    missing = [names for names in groups.values() if set(names) & set(work.missing)]
    with Processes() as processes:
        for names in work.in_time(missing):
            entries = [_entry(name, work.variants[name]) for name in names]
            outcomes = processes.run(entries)
            rows = [_figures(outcome) for outcome in outcomes]
            _compare(rows)
            for outcome, row in zip(outcomes, rows, strict=True):
                work.results.add(work.part, outcome.entry.name, outcome.status, row)


def _entry(name: str, variant: dict[str, Any]) -> Entry:
    environment = comparison.ENVIRONMENT if "torch" not in variant["module"] else {}
    return Entry(name, variant["module"], variant["spec"], environment=environment)


def _figures(outcome: Outcome) -> dict[str, Any]:
    """Returns the figures of a competitor by itself."""
    if not outcome.ok:
        return {}
    kept = "device", "dtype", "recurrence", "cudnn", "prepare_seconds"
    figures = {key: outcome.info[key] for key in kept if key in outcome.info}
    if outcome.entry.module == ".probes":
        return figures | {_COPIED: outcome.value("bytes_per_second")}
    shape = Shape(**outcome.entry.spec["shape"])
    if "nats" not in outcome.values[-1]:  # samples
        read = shape.weights_per_step * _ITEM_BYTES[outcome.entry.spec["dtype"]]
        return figures | {
            "bytes_per_second": outcome.rate(shape.num_streams),
            "us_per_step": 1e6 / outcome.rate(),
            "weight_bytes_per_second": read * outcome.rate(),
        }
    rate = outcome.rate(shape.bytes_per_update)
    return figures | {
        "bytes_per_second": rate,
        "bytes_per_second_range": outcome.rates(shape.bytes_per_update),
        "ms_per_update": 1e3 / outcome.rate(),
        "flops_per_second": rate * shape.training_flops_per_byte,
        "nats": outcome.values[-1]["nats"],
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    """Adds charlstm's speed, which comes first, as a multiple of each; and shares of a copy's."""
    ours = rows[0].get("bytes_per_second")
    (copied,) = [row[_COPIED] for row in rows if _COPIED in row] or [None]
    for row in rows:
        if ours and "bytes_per_second" in row:
            row["charlstm_is"] = ours / row["bytes_per_second"]
        if copied and "weight_bytes_per_second" in row:
            row["share_of_copy_bandwidth"] = row["weight_bytes_per_second"] / copied
