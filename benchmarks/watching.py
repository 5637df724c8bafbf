"""Measures whether a run is slower while `charlstm report RUN --watch` follows it.

  python -m benchmarks.watching --rounds=6 --turn_seconds=20

One run trains, and the watcher beside it is paused and continued in turn (SIGSTOP, SIGCONT). The
run's own metrics lines say how fast it was in each state. A line that spans both is left out.
"""

import itertools
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import common, reporting
from benchmarks.competitors import versions_of
from benchmarks.interleaved import ROOT
from benchmarks.reporting import Column
from charlstm.training.metrics_file import read_figures

_CONFIG = flags.DEFINE_string("config", "quickstart", "What is trained.")
_CORPUS = flags.DEFINE_string("corpus", "shakespeare", "What it is trained on.")
_EVERY = flags.DEFINE_integer("every", 10, "Seconds between the watcher's looks at the run.", 1)
_FIELDS = flags.DEFINE_multi_string("field", [], "SECTION.FIELD=VALUE of the configuration.")
_SETTLE_SECONDS = flags.DEFINE_float("settle_seconds", 20.0, "Before the first period.", 0.0)

_COLUMNS = (
    Column("watcher", "watcher"),
    Column("lines", "lines of metrics"),
    Column("bytes_per_second", "bytes/s", reporting.short),
    Column("bytes_per_second_range", "lowest – highest period", reporting.span),
    Column("ratio", "of the speed without", reporting.percent),
)
_TRAINING = {
    "training.num_updates": 10**9,
    "training.log_every": 10,
    "training.evaluate_every": 0,
    "training.sample_every": 0,
    "training.checkpoint_every": 0,
    "optimizer.schedule": "constant",
}


def main(argv: Sequence[str]) -> None:
    """Trains a run, and pauses and continues its watcher."""
    del argv
    report = common.new_report("watching", "What watching a run costs it")
    rows = report.table(_CONFIG.value, _COLUMNS)
    periods: dict[bool, list[list[float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fields = [f"--config.{name}={value}" for name, value in _TRAINING.items()]
        fields += [f"--corpus={_CORPUS.value}"]
        fields += [f"--config.{field}" for field in _FIELDS.value]
        train = _start("train", f"--config={_CONFIG.value}", f"--workdir={run}", *fields)
        while not read_figures(run) and train.poll() is None:
            time.sleep(0.1)
        page = Path(folder) / "report.html"
        watch = _start("report", str(run), "--watch", f"--every={_EVERY.value}", f"--output={page}")
        while not page.exists() and watch.poll() is None:
            time.sleep(0.1)
        time.sleep(_SETTLE_SECONDS.value)
        try:
            for _ in range(common.ROUNDS.value):
                for watched in (True, False):
                    watch.send_signal(signal.SIGCONT if watched else signal.SIGSTOP)
                    periods[watched].append(_period(run, train))
        finally:
            watch.kill()
            train.kill()
            watch.wait()
            train.wait()
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "numpy")
    without = statistics.median(_joined(periods[False]))
    for watched, taken in periods.items():
        rates = _joined(taken)
        medians = [statistics.median(period) for period in taken]
        rows.append(
            {
                "watcher": "at work" if watched else "held",
                "lines": len(rates),
                "bytes_per_second": statistics.median(rates),
                "bytes_per_second_range": (min(medians), max(medians)),
                "ratio": statistics.median(rates) / without,
                "turns": taken,
            }
        )
    report.write(lambda figure: _draw(figure, rows))


def _start(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "charlstm", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def _period(run: Path, train: "subprocess.Popen[bytes]") -> list[float]:
    """Returns the bytes/s of the metrics lines that begin and end in this period; at least one."""
    first = len(read_figures(run)) + 1
    end = time.monotonic() + common.RUN_SECONDS.value
    while time.monotonic() < end or len(read_figures(run)) <= first:
        if train.poll() is not None:
            raise RuntimeError(f"training ended with exit code {train.returncode}")
        time.sleep(0.1)
    return [line["bytes_per_second"] for line in read_figures(run)[first:]]


def _joined(periods: list[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(periods))


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axis = figure.subplots()
    axis.boxplot([_joined(row["turns"]) for row in rows], showfliers=False)
    axis.set_xticklabels([f"watcher {row['watcher']}" for row in rows])
    axis.set_ylabel("bytes/s")


if __name__ == "__main__":
    app.run(main)
