"""Trains recipes for a given time, and scores them with static and dynamic evaluation.

  python -m benchmarks.recipes --recipes=tinyshakespeare,shakespeare --seconds=290
  python -m benchmarks.recipes --recipes=enwik8 --seconds=1700 --at_once=500   # again to resume

The first call measures how many updates fit into `--seconds`, so that the learning-rate schedule
ends with them. Each run is kept under `--runs`, and the same command resumes it there. `--at_once`
saves and ends a recipe's training after so many seconds of one call. Whatever was reached is scored
on whole splits; the status of an unfinished run is `as far as it got`.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import common, reporting
from benchmarks.competitors import versions_of
from benchmarks.interleaved import ROOT
from benchmarks.reporting import Column
from benchmarks.timed_training import Failed, bytes_of_update, fit, settings_of, train
from charlstm.config import Config
from charlstm.training.metrics_file import read_figures

_RECIPES = flags.DEFINE_list(
    "recipes", ["tinyshakespeare", "shakespeare"], "Names or files, as for charlstm train."
)
_SECONDS = flags.DEFINE_float("seconds", 290.0, "Training that each is planned for.", 1.0)
_AT_ONCE = flags.DEFINE_float("at_once", None, "Training of each in this call; all by default.")
_EVALUATIONS = flags.DEFINE_integer("evaluations", 8, "Validations of each run.", 1)
_RUNS = flags.DEFINE_string("runs", "runs/recipes", "Folder of the run folders.")
_FIELDS = flags.DEFINE_multi_string("field", [], "section.field=value, of every recipe.")
_CORPUS = flags.DEFINE_string("corpus", None, "Another text than the recipes'.")
_DYNAMIC = flags.DEFINE_boolean("dynamic", True, "Dynamic evaluation too, of finished runs.")

_FITTED = ("training.num_updates", "training.evaluate_every", "optimizer.warmup_updates")
_COLUMNS = (
    Column("recipe", "recipe"),
    Column("status", "status"),
    Column("parameters", "parameters", reporting.short),
    Column("updates", "updates", lambda count: f"{count:,}"),
    Column("planned", "of", lambda count: f"{count:,}"),
    Column("bytes_read", "bytes read", reporting.short),
    Column("seconds", "seconds", reporting.number(0)),
    *(
        Column(f"{split}{kind}{unit}", f"{split}{kind.replace('_', ', ')}, {heading}", write)
        for split in ("valid", "test")
        for kind in ("", "_dynamic")
        for unit, heading, write in (
            ("_bits_per_byte", "bits per byte", reporting.number(4)),
            ("_nats", "nats", reporting.number(4)),
        )
    ),
)


def main(argv: Sequence[str]) -> None:
    """Trains and scores the recipes that the flags name; writes the report after each."""
    del argv
    report = common.new_report("recipes", "Recipes, each in the time it was given")
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy")
    rows = report.table("Recipes", _COLUMNS)
    troubles = False
    for recipe in filter(None, _RECIPES.value):
        row: dict[str, Any] = {"recipe": Path(recipe).stem}
        rows.append(row)
        folder = Path(_RUNS.value).absolute() / row["recipe"]
        try:
            finished = _train(recipe, folder, row)
            report.learn({"device": row["environment"]["devices"]})
            _score(folder, row, dynamic=False)
            if finished and _DYNAMIC.value:
                report.write(say=False)  # dynamic evaluation may outlast a time limit
                _score(folder, row, dynamic=True)
        except Failed as failure:
            row["status"], troubles = f"failed: {failure}", True
        report.write(say=False)
    report.write()
    sys.exit(troubles)


def _train(recipe: str, folder: Path, row: dict[str, Any]) -> bool:
    """Trains or resumes a recipe and fills in its row; returns True if the run is finished."""
    more = [f"--corpus={_CORPUS.value}"] if _CORPUS.value else []
    fields = common.fields(_FIELDS.value)
    if (folder / "config.json").exists():
        fields_of_run = Config.from_json(settings_of(folder)).flat()
        fitted = {address: fields_of_run[address] for address in _FITTED}
    else:
        common.say(f"{recipe}: how many updates fit into {_SECONDS.value:g} s")
        fitted = fit(recipe, _SECONDS.value, _EVALUATIONS.value, fields, *more)
    common.say(f"{recipe}: training for {fitted['training.num_updates']:,} updates")
    finished = train(recipe, folder, fields | fitted, *more, seconds=_AT_ONCE.value)
    settings, about = settings_of(folder), json.loads((folder / "about.json").read_text())
    last = read_figures(folder)[-1]
    row |= {
        "status": "finished" if finished else "as far as it got",
        "parameters": about["num_parameters"],
        "updates": last["step"],
        "planned": settings["training"]["num_updates"],
        "bytes_read": last["step"] * bytes_of_update(settings),
        "seconds": last["seconds"],
        "environment": about["environment"],
        "config": settings,
    }
    return finished


def _score(folder: Path, row: dict[str, Any], *, dynamic: bool) -> None:
    """Adds the scores of each whole split to the row."""
    for split in ("valid", "test") if row["config"]["data"]["test_size"] else ("valid",):
        common.say(f"{row['recipe']}: scoring {split}{', dynamic' if dynamic else ''}")
        found = _evaluate(folder, split, dynamic=dynamic)
        kind, scored = ("_dynamic", found["dynamic"]) if dynamic else ("", found)
        for value in ("bits_per_byte", "nats"):
            row[f"{split}{kind}_{value}"] = scored[value]


def _evaluate(folder: Path, split: str, *, dynamic: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "charlstm", "evaluate", f"--checkpoint={folder}", "--json"]
    command += [f"--split={split}", *(["--dynamic"] if dynamic else [])]
    if _CORPUS.value:
        command.append(f"--corpus={_CORPUS.value}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed.of(done.stderr, done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    app.run(main)
