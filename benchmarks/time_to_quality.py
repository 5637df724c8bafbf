"""Bits per byte against seconds: named configurations, and the scripts charlstm started from.

  python -m benchmarks.time_to_quality --configs=quickstart --seconds=180
  python -m benchmarks.time_to_quality --configs=quickstart,my_config.py --seeds=question
  python -m benchmarks.time_to_quality --configs= --seeds= --runs=runs/a,runs/b

Each trains for the given seconds on an otherwise idle machine, one after another. A configuration's
number of updates is set so that its learning-rate schedule ends with its time. Every model is
scored by charlstm, on the whole validation split; a script's weights are kept as it trains and
scored afterwards. Seconds count from the compilation of the first update on.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from absl import app, flags

from benchmarks import common, lineup, reporting
from benchmarks.contestants import versions_of
from benchmarks.contestants.keras_seed import SHAPES as SEED_SHAPES
from benchmarks.reporting import Column, Report
from benchmarks.turns import ROOT
from benchmarks.workloads import Shape
from charlstm.training.metrics import read_figures

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
_PROBE_UPDATES, _PROBE_LOG_EVERY = 15, 5


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
    """Trains a configuration for the time there is; a short run beforehand tells its speed."""
    name = Path(config).stem
    with tempfile.TemporaryDirectory() as folder:
        probe, run = Path(folder) / "probe", Path(folder) / "run"
        logging = {"training.log_every": _PROBE_LOG_EVERY}
        failure = _charlstm(config, probe, logging, f"--stop_after={_PROBE_UPDATES}")
        if failure:
            return {"run": name, "status": failure}
        settings = json.loads((probe / "config.json").read_text())
        bytes_per_update = settings["data"]["num_streams"] * settings["data"]["window_length"]
        last = read_figures(probe)[-1]
        started = last["seconds"] - last["step"] * bytes_per_update / last["bytes_per_second"]
        left = max(1.0, _SECONDS.value - started)
        updates = max(_EVALUATIONS.value, int(left * last["bytes_per_second"] / bytes_per_update))
        fields = {
            "training.num_updates": updates,
            "training.evaluate_every": max(1, updates // _EVALUATIONS.value),
            "optimizer.warmup_updates": min(
                settings["optimizer"]["warmup_updates"], max(0, updates // 10)
            ),
        }
        failure = _charlstm(config, run, fields)
        if failure:
            return {"run": name, "status": failure}
        row = _row(name, read_figures(run)) | {"fields": fields, "config": settings}
        return row | {"bytes_seen": row["updates"] * bytes_per_update}


def _charlstm(config: str, folder: Path, fields: dict[str, Any], *more: str) -> str | None:
    """Runs `charlstm train`; None, or why it failed."""
    fields = {"training.checkpoint_every": 0, "training.sample_every": 0} | fields
    command = [sys.executable, "-m", "charlstm", "train", f"--config={config}"]
    command += [f"--workdir={folder}", f"--corpus={_CORPUS.value}", *more]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"


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
    # Loads jax, for which a run of `charlstm train` need not wait.
    from benchmarks import seed_quality

    shape = Shape.parse(_SEED_SHAPE.value) if _SEED_SHAPE.value else SEED_SHAPES[script]
    kind: Literal["bytes", "corpus"] = "bytes" if script == "question" else "corpus"
    turns = max(2, min(_EVALUATIONS.value, _SECONDS.value))
    entry = lineup.seed(script, _KERAS_PYTHON.value, shape)
    outcome, curve = seed_quality.train(
        entry, shape, kind, _CORPUS.value, turns, max(1, _SECONDS.value // turns)
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
