"""A run that diverges keeps its files readable, and says what to do."""

import json

import pytest
from run_folders import checkpoints

from charlstm.checkpoint.metadata import METRIC, read_metadata
from charlstm.checkpoint.reading import resolve
from charlstm.report.page import render
from charlstm.report.runs import readers

FLAGS = (
    "--tensorboard",
    "--num_cpu_devices=1",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=8",
    "--config.model.alphabet=corpus",
    "--config.data.num_streams=4",
    "--config.data.window_length=8",
    "--config.optimizer.learning_rate=1e4",
    "--config.optimizer.weight_decay=0.01",  # times the rate: parameters grow without end
    "--config.optimizer.clip_norm=0",
    "--config.optimizer.warmup_updates=20",
    "--config.training.num_updates=40",
    "--config.training.log_every=5",
    "--config.training.evaluate_every=5",
    "--config.training.sample_every=20",
    "--config.training.keep_last=100",
    "--config.training.max_skipped_in_a_row=100",
)


def strictly(text):
    """JSON that has no NaN and no Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def diverged(charlstm, text_file, tmp_path_factory):
    """The folder of the run, and what it said."""
    folder = tmp_path_factory.mktemp("diverged") / "run"
    done = charlstm("train", f"--corpus={text_file}", f"--workdir={folder}", *FLAGS)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture(scope="module")
def lines(diverged):
    return [strictly(line) for line in (diverged[0] / "metrics.jsonl").read_text().splitlines()]


def test_what_is_not_finite_is_null_in_the_metrics(lines):
    figures = {line["step"]: line for line in lines if "diagnosis" not in line}
    assert list(figures) == list(range(5, 45, 5))
    assert figures[5]["valid_bits_per_byte"] > 1000  # finite, and hopeless
    last = figures[40]
    assert last["train_bits_per_byte"] is last["valid_bits_per_byte"] is last["valid_nats"] is None
    assert last["skipped_updates"] > 0


def test_a_validation_that_is_not_finite_is_never_the_best(diverged, lines):
    folder, _ = diverged
    scored = {line["step"]: line.get("valid_bits_per_byte") for line in lines}
    finite = {step: bits for step, bits in scored.items() if bits is not None}
    assert resolve(folder).name == str(min(finite, key=finite.get))
    assert checkpoints(folder)[-1] == 40
    saved = folder / "checkpoints" / "40"
    strictly((saved / "metadata" / "metadata").read_text())
    assert METRIC not in read_metadata(saved).metrics


def test_the_console_says_that_a_validation_is_not_finite(diverged):
    assert "validation at update 40: not finite (accuracy" in diverged[1]
    assert "40/40 loss not finite" in diverged[1] and "e+" in diverged[1]


def test_the_diagnosis_names_a_usual_learning_rate_and_nothing_absurd(lines):
    (said,) = [line for line in lines if "diagnosis" in line]
    assert said["diagnosis"] == "learning_rate_too_high" and 20 <= said["step"] < 40
    assert "optimizer.learning_rate=10000 is too high" in said["message"]
    assert said["message"].endswith("start again with a lower one, 0.01 or so")


def test_a_diverged_model_still_gives_samples(diverged):
    samples = sorted(path.name for path in (diverged[0] / "samples").iterdir())
    assert samples == ["00000005.txt", "00000020.txt", "00000040.txt"]


def test_a_report_of_figures_that_are_null_is_whole(diverged):
    (reader,) = readers([str(diverged[0])])
    page = render([reader.read()], diverged[0] / "report.html")
    data = page.partition('<script type="application/json" id="data">')[2].partition("<")[0]
    assert strictly(data)["charts"] and "learning_rate_too_high" in page


def test_a_score_that_is_not_finite_is_null_in_the_json_of_evaluate(diverged, text_file, charlstm):
    checkpoint = f"--checkpoint={diverged[0] / 'checkpoints' / '40'}"
    done = charlstm("evaluate", checkpoint, f"--corpus={text_file}", "--json")
    assert done.returncode == 0, done.stderr
    assert strictly(done.stdout)["bits_per_byte"] is None
