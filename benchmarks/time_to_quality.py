"""Measures bits per byte against seconds, for named configurations and two Keras scripts.

  python -m benchmarks.time_to_quality --configs=quickstart --seconds=180
  python -m benchmarks.time_to_quality --configs=quickstart,my_config.py --seeds=question
  python -m benchmarks.time_to_quality --configs= --seeds= --runs=runs/a,runs/b

The scripts are those that charlstm starts from (REPRODUCTION.md). Each competitor trains for the
given seconds on an otherwise idle machine, one after another. A configuration's number of updates
is set so that its learning-rate schedule ends with its time. charlstm scores every model on the
whole validation split; a script's weights are saved while it trains and scored afterwards. Time
counts from the compilation of the first update.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.competitors import versions_of
from benchmarks.competitors.keras_seed import SHAPES as SEED_SHAPES
from benchmarks.reporting import Column, Report
from benchmarks.timed_training import Failed, bytes_of_update, fit, settings_of, train
from charlstm.benchmark.shapes import Shape
from charlstm.training.metrics_file import read_figures

_CONFIGS = flags.DEFINE_list("configs", ["quickstart"], "Names or files, as for charlstm train.")
_SECONDS = flags.DEFINE_integer("seconds", 180, "To train for, each.", 1)
_EVALUATIONS = flags.DEFINE_integer("evaluations", 8, "Points of each curve.", 1)
_RUNS = flags.DEFINE_list("runs", [], "Finished run folders to show too.")
_CORPUS = flags.DEFINE_string("corpus", "shakespeare", "What all are trained on.")
_SEEDS = flags.DEFINE_list("seeds", ["question", "answer"], "Seed scripts to train.")
_SEED_SHAPE = flags.DEFINE_string("seed_shape", None, "Rehearse: the scripts' shape, T = 1.")
_KERAS_PYTHON = flags.DEFINE_string(
    "keras_python", sys.executable, "Interpreter that has TensorFlow and Keras."
)

_COLUMNS = (
    Column("run", "run"),
    Column("status", "status"),
    Column("seconds", "seconds", reporting.number(0)),
    Column("bytes_seen", "bytes trained on", reporting.short),
    Column("bits_per_byte", "bits per byte", reporting.number(3)),
    Column("halfway", "at half the time", reporting.number(3)),
)


def main(argv: Sequence[str]) -> None:
    """Trains what the flags name and draws all curves together."""
    del argv
    report = common.new_report("time_to_quality", "Bits per byte against seconds")
    rows = report.table(f"Validation split of {_CORPUS.value}", _COLUMNS)
    for config in filter(None, _CONFIGS.value):
        common.say(f"training {config}")
        rows.append(_train(config))
    for script in filter(None, _SEEDS.value):
        common.say(f"training the {script}'s script")
        rows.append(_train_seed(script, report))
    rows += [_row(Path(run).name, read_figures(Path(run))) for run in filter(None, _RUNS.value)]
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy")
    report.write(lambda figure: _draw(figure, rows))


def _train(config: str) -> dict[str, Any]:
    """Trains a configuration for the given time."""
    name, corpus = Path(config).stem, f"--corpus={_CORPUS.value}"
    quiet = {"training.checkpoint_every": 0, "training.sample_every": 0}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        try:
            fields = fit(config, _SECONDS.value, _EVALUATIONS.value, quiet, corpus)
            train(config, run, quiet | fields, corpus)
        except Failed as failure:
            return {"run": name, "status": f"failed: {failure}"}
        settings = settings_of(run)
        row = _row(name, read_figures(run)) | {"fields": fields, "config": settings}
        return row | {"bytes_seen": row["updates"] * bytes_of_update(settings)}


def _row(name: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [line for line in metrics if "valid_bits_per_byte" in line]
    curve = [(line["seconds"], line["valid_bits_per_byte"]) for line in scored]
    return _with_curve({"run": name, "status": "ok", "updates": metrics[-1]["step"]}, curve)


def _with_curve(row: dict[str, Any], curve: list[tuple[float, float]]) -> dict[str, Any]:
    if not curve:
        return row | {"status": "never validated"}
    seconds, bits = curve[-1]
    half = min(curve, key=lambda point: abs(point[0] - seconds / 2))
    return row | {"seconds": seconds, "bits_per_byte": bits, "halfway": half[1], "curve": curve}


def _train_seed(script: str, report: Report) -> dict[str, Any]:
    """Trains and scores one of the scripts."""
    # Imported late because it loads jax, which a run of `charlstm train` need not wait for.
    from benchmarks import seed_quality

    shape = Shape.parse(_SEED_SHAPE.value) if _SEED_SHAPE.value else SEED_SHAPES[script]
    kind: Literal["bytes", "corpus"] = "bytes" if script == "question" else "corpus"
    num_runs = max(2, min(_EVALUATIONS.value, _SECONDS.value))
    entry = comparison.seed(script, _KERAS_PYTHON.value, shape)
    outcome, curve = seed_quality.train(
        entry, shape, kind, _CORPUS.value, num_runs, max(1, _SECONDS.value // num_runs)
    )
    report.learn(outcome.info)
    row: dict[str, Any] = {
        "run": f"the {script}'s script",
        "status": outcome.status,
        "info": outcome.info,
    }
    if not outcome.ok:
        return row
    updates = int(outcome.values[-1]["updates"])
    row |= {"updates": updates, "bytes_seen": updates * shape.num_streams}
    return _with_curve(row, curve)


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axis = figure.subplots()
    for row in rows:
        if "curve" in row:
            axis.plot(*zip(*row["curve"], strict=True), "o-", label=row["run"])
            axis.legend()
    axis.set(xlabel="seconds of training", ylabel="validation bits per byte", xscale="log")


if __name__ == "__main__":
    app.run(main)
