"""Measures bits per byte against seconds: configurations, transformers and two Keras scripts.

  python -m benchmarks.time_to_quality --configs=quickstart --seconds=180
  python -m benchmarks.time_to_quality --transformers=cpu,gpu --seeds= --seconds=60,180,600
  python -m benchmarks.time_to_quality --configs= --seeds= --runs=runs/a,runs/b

The scripts are those that charlstm starts from (REPRODUCTION.md); the transformers are nanoGPT's
for characters (`competitors/torch_transformer.py`). Each competitor trains for the given seconds on
an otherwise idle machine, one after another, and once more for every other number of seconds. The
number of updates of a configuration or a transformer is set so that its learning-rate schedule ends
with its time. Each model is scored on the whole validation split; a script's weights are saved
while it trains and scored afterwards. Time counts from the compilation of the first update, and for
a transformer, which is not charged for its validation either, from its first update.
"""

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from absl import app, flags

from benchmarks import common, comparison, reporting, sample_command
from benchmarks.competitors import versions_of
from benchmarks.competitors.keras_seed import SHAPES as SEED_SHAPES
from benchmarks.interleaved import run_interleaved
from benchmarks.reporting import Column, Report
from benchmarks.timed_training import Failed, bytes_of_update, fit, settings_of, train
from charlstm.benchmark.shapes import Shape
from charlstm.data.corpus import Alphabet, Corpus, load_corpus
from charlstm.training.metrics_file import read_figures

_CONFIGS = flags.DEFINE_list("configs", ["quickstart"], "Names or files, as for charlstm train.")
_TRANSFORMERS = flags.DEFINE_list("transformers", [], "Of nanoGPT's recipes: cpu, gpu.")
_SECONDS = flags.DEFINE_list("seconds", ["180"], "To train for, each; several numbers.")
_EVALUATIONS = flags.DEFINE_integer("evaluations", 8, "Points of each curve.", 1)
_RUNS = flags.DEFINE_list("runs", [], "Finished run folders to show too.")
_CORPUS = flags.DEFINE_string("corpus", "shakespeare", "What all are trained on.")
_VALID_SIZE = flags.DEFINE_float(
    "valid_size", 0.05, "Of its validation split, see data.valid_size."
)
_TEST_SIZE = flags.DEFINE_float("test_size", 0.05, "Of its test split, see data.test_size.")
_SEEDS = flags.DEFINE_list("seeds", ["question", "answer"], "Seed scripts to train.")
_SEED_SHAPE = flags.DEFINE_string("seed_shape", None, "Rehearse: the scripts' shape, T = 1.")
_KERAS_PYTHON = flags.DEFINE_string(
    "keras_python", sys.executable, "Interpreter that has TensorFlow and Keras."
)
_TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "Interpreter that has PyTorch.")
_TORCH_DTYPE = flags.DEFINE_enum("torch_dtype", "float32", ["float32", "bfloat16"], "Of products.")
_TORCH_COMPILE = flags.DEFINE_boolean("torch_compile", True, "Compile the transformers.")

flags.register_validator(
    "seconds",
    lambda values: all(value.isdecimal() and int(value) >= 1 for value in values),
    "--seconds must be whole numbers of 1 or more, such as 60,180",
)

# Of text that `charlstm sample` makes to be measured.
_SAMPLING_SECONDS = 4.0

_COLUMNS = (
    Column("run", "run"),
    Column("status", "status"),
    Column("seconds", "seconds", reporting.number(0)),
    Column("bytes_seen", "bytes trained on", reporting.short),
    Column("bits_per_byte", "bits per byte", reporting.number(3)),
    Column("nats", "nats", reporting.number(3)),
    Column("halfway", "at half the time", reporting.number(3)),
    Column("sampled", "sampled alone, bytes/s", reporting.short),
)


def main(argv: Sequence[str]) -> None:
    """Trains what the flags name and draws all curves together."""
    del argv
    report = common.new_report("time_to_quality", "Bits per byte against seconds")
    rows = report.table(f"Validation split of {_CORPUS.value}", _COLUMNS)
    for seconds in map(int, _SECONDS.value):
        for config in filter(None, _CONFIGS.value):
            common.say(f"training {config} for {seconds} s")
            rows.append(_train(config, seconds))
            report.write(say=False)
        for recipe in filter(None, _TRANSFORMERS.value):
            common.say(f"training the transformer {recipe} for {seconds} s")
            rows.append(_train_transformer(recipe, seconds, report))
            report.write(say=False)
        for script in filter(None, _SEEDS.value):
            common.say(f"training the {script}'s script for {seconds} s")
            rows.append(_train_seed(script, seconds, report))
    rows += [_row(Path(run).name, read_figures(Path(run))) for run in filter(None, _RUNS.value)]
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy")
    report.write(lambda figure: _draw(figure, rows))


def _train(config: str, seconds: int) -> dict[str, Any]:
    """Trains a configuration for the given time."""
    name, corpus = Path(config).stem, f"--corpus={_CORPUS.value}"
    quiet = {
        "training.checkpoint_every": 0,
        "training.sample_every": 0,
        "data.valid_size": _VALID_SIZE.value,
        "data.test_size": _TEST_SIZE.value,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        try:
            fields = fit(config, seconds, _EVALUATIONS.value, quiet, corpus)
            train(config, run, quiet | fields, corpus)
        except Failed as failure:
            return {"run": name, "status": f"failed: {failure}"}
        settings = settings_of(run)
        row = _row(name, read_figures(run)) | {"fields": fields, "config": settings}
        row["bytes_seen"] = row["updates"] * bytes_of_update(settings)
        count = sample_command.bytes_in(_SAMPLING_SECONDS, run)
        return row | {"sampled": sample_command.bytes_per_second(run, 1, count)}


def _train_transformer(recipe: str, seconds: int, report: Report) -> dict[str, Any]:
    """Trains a transformer for the given time."""
    corpus = _corpus()
    alphabet = Alphabet.of("corpus", corpus.data)
    num_runs = max(2, min(_EVALUATIONS.value, seconds))
    row: dict[str, Any] = {"run": f"transformer, nanoGPT's for a {recipe.upper()}"}
    with tempfile.TemporaryDirectory() as folder:
        texts = {split: Path(folder) / split for split in ("train", "valid")}
        for split, path in texts.items():
            path.write_bytes(alphabet.encode(corpus.split(split)).tobytes())
        entry = comparison.transformer(
            recipe,
            _TORCH_PYTHON.value,
            {split: str(path) for split, path in texts.items()}
            | {
                "num_symbols": alphabet.size,
                "seconds": seconds,
                "runs": num_runs,
                "dtype": _TORCH_DTYPE.value,
                "compile": _TORCH_COMPILE.value,
            },
        )
        # The first run is a warm-up that is not counted, but it trains like the others.
        (outcome,) = run_interleaved([entry], num_runs - 1, 0.0, common.say)
    report.learn(outcome.info)
    row |= {"status": outcome.status, "info": outcome.info}
    if not outcome.ok:
        return row
    last = outcome.values[-1]
    row |= {"updates": int(last["updates"]), "sampled": last["sampled_per_second"]}
    row["bytes_seen"] = row["updates"] * outcome.info["bytes_of_update"]
    curve = [(values["trained_seconds"], values["bits_per_byte"]) for values in outcome.values]
    return _with_curve(row, curve)


def _corpus() -> Corpus:
    return load_corpus(_CORPUS.value, _VALID_SIZE.value, _TEST_SIZE.value)


def _row(name: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [line for line in metrics if "valid_bits_per_byte" in line]
    curve = [(line["seconds"], line["valid_bits_per_byte"]) for line in scored]
    return _with_curve({"run": name, "status": "ok", "updates": metrics[-1]["step"]}, curve)


def _with_curve(row: dict[str, Any], curve: list[tuple[float, float]]) -> dict[str, Any]:
    if not curve:
        return row | {"status": "never validated"}
    seconds, bits = curve[-1]
    half = min(curve, key=lambda point: abs(point[0] - seconds / 2))
    row |= {"seconds": seconds, "bits_per_byte": bits, "nats": bits * math.log(2)}
    return row | {"halfway": half[1], "curve": curve}


def _train_seed(script: str, seconds: int, report: Report) -> dict[str, Any]:
    """Trains and scores one of the scripts."""
    # Imported late because it loads jax, which a run of `charlstm train` need not wait for.
    from benchmarks import seed_quality

    shape = Shape.parse(_SEED_SHAPE.value) if _SEED_SHAPE.value else SEED_SHAPES[script]
    kind: Literal["bytes", "corpus"] = "bytes" if script == "question" else "corpus"
    num_runs = max(2, min(_EVALUATIONS.value, seconds))
    entry = comparison.seed(script, _KERAS_PYTHON.value, shape)
    corpus = _corpus()
    outcome, curve = seed_quality.train(
        entry, shape, kind, corpus, num_runs, max(1, seconds // num_runs)
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
    """Draws the curves; of a run for several times, a line through their ends too."""
    axis = figure.subplots()
    drawn = [row for row in rows if "curve" in row]
    for number, name in enumerate(dict.fromkeys(row["run"] for row in drawn)):
        curves = [row["curve"] for row in drawn if row["run"] == name]
        style = {"color": f"C{number}", "label": name}
        if len(curves) == 1:
            axis.plot(*zip(*curves[0], strict=True), "o-", **style)
            continue
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), "-", color=f"C{number}", alpha=0.3)
        axis.plot(*zip(*(curve[-1] for curve in curves), strict=True), "o-", **style)
    if drawn:
        axis.legend()
    axis.set(xlabel="seconds of training", ylabel="validation bits per byte", xscale="log")


if __name__ == "__main__":
    app.run(main)
