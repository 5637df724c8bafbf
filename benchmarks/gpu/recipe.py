"""Trains and scores a recipe in the time that there is; `benchmarks.recipes` does it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.training import corpus_for
from benchmarks.gpu.work import Work
from benchmarks.interleaved import ROOT
from benchmarks.timed_training import Failed

# Finding out the speed, starting, and scoring two splits, on an H200 with 3 x LSTM(1024).
_SECONDS_BESIDE_TRAINING = 75.0
_TINY_SECONDS = 1.0
_TINY_FIELDS = {
    "model.hidden_size": 8,
    "model.parameter_budget": 0,
    "data.num_streams": 4,
    "data.window_length": 8,
    "data.valid_size": 0.01,
    "data.test_size": 0.0,
}


def measure(work: Work) -> None:
    """Trains a recipe, or resumes its run, and takes the scores from the report."""
    for name, variant in work.turns():
        with work.result(name) as figures:
            figures |= _row(work, name, variant["planned"])
            if figures["recipe_status"] != "finished":
                raise Failed("not finished; the same call goes on with it")


def _row(work: Work, name: str, planned: float | None) -> dict[str, Any]:
    """Runs `benchmarks.recipes` and returns the figures of its row."""
    room = work.seconds_left - _SECONDS_BESIDE_TRAINING
    folder = Path(work.folder)
    arguments = [f"--recipes={name}", f"--name=recipe-{name}", f"--out={folder}", "--nodynamic"]
    arguments += [f"--runs={folder / 'runs'}", f"--corpus={corpus_for(work, name)}"]
    arguments.append(f"--at_once={room:.0f}")
    arguments.append(f"--seconds={_TINY_SECONDS if work.tiny else planned or room:.0f}")
    if work.tiny:
        arguments.append("--evaluations=1")
        arguments += [f"--field={field}={value}" for field, value in _TINY_FIELDS.items()]
    command = [sys.executable, "-m", "benchmarks.recipes", *arguments]
    path = folder / f"recipe-{name}.json"
    path.unlink(missing_ok=True)
    code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
    if not path.exists():
        raise Failed(f"benchmarks.recipes ended with code {code}: see log-{work.part}.txt")
    (row,) = json.loads(path.read_text())["tables"]["Recipes"]
    if "updates" not in row:
        raise Failed(row["status"].removeprefix("failed: "))
    kept = ("updates", "planned", "bytes_read", "seconds", "parameters")
    scores = [key for key in row if key.endswith("_bits_per_byte")]
    return {
        "recipe_status": row["status"],
        "device": row["environment"]["devices"],
        **{key: row[key] for key in (*kept, *scores)},
    }
