"""Every diagnosis is given to a run that has the fault, once, and to no run that has not."""

import json

import numpy as np
import pytest

from charlstm.checkpoint.metadata import read_metadata
from charlstm.config import Config
from charlstm.data.ngrams import ngram_levels
from charlstm.training.diagnosis.probing import overfitted
from charlstm.training.trainer import train

HEALTHY = {
    "model.num_layers": 2,
    "model.hidden_size": 32,
    "data.num_streams": 32,
    "data.window_length": 16,
    "optimizer.warmup_updates": 10,
    "optimizer.learning_rate": 1e-2,
    "optimizer.schedule": "constant",
    "training.num_updates": 400,
    "training.log_every": 25,
    "training.evaluate_every": 100,
    "training.sample_every": 0,
    "training.checkpoint_every": 0,
    "training.checkpoint_seconds": 0.0,
}
# A window of one byte: with its state carried, or zero before every byte.
ONE_BYTE = {
    "data.window_length": 1,
    "data.num_streams": 64,
    "optimizer.schedule": "cosine",
    "training.num_updates": 2500,
    "training.evaluate_every": 250,
}
SHORT = {"training.num_updates": 300, "training.evaluate_every": 0}
RUNS = {
    "healthy": ({}, []),
    "carried": (ONE_BYTE | {"training.num_updates": 1000}, []),
    "not carried": (ONE_BYTE | {"data.carry_state": False}, ["state_unused"]),
    "by heart": (
        {"model.hidden_size": 64, "training.evaluate_every": 50, "data.corpus": "few words"},
        ["overfitting"],
    ),
    "too fast": (
        SHORT | {"optimizer.learning_rate": 3.0, "optimizer.clip_norm": 0.0},
        ["learning_rate_too_high"],
    ),
    "too slow": (SHORT | {"optimizer.learning_rate": 1e-5}, ["learning_rate_too_low"]),
    "clipped": (SHORT | {"optimizer.clip_norm": 0.01}, ["gradients_clipped"]),
    "crowded": (
        {"data.num_streams": 2048, "training.num_updates": 4, "training.evaluate_every": 0},
        ["streams_too_short"],
    ),
}


def write_text(path, num_words, num_lines):
    """Lines of made-up words, a few of them frequent."""
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(num_words)]
    chances = 1 / np.arange(1, num_words + 1)
    lines = [rng.choice(words, 8, p=chances / chances.sum()) for _ in range(num_lines)]
    path.write_text("\n".join(" ".join(line) for line in lines))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_text(folder / "words.txt", 60, 1500)
    write_text(folder / "few.txt", 400, 120)
    return folder


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    """Trains what `RUNS` names, once."""
    folders = {}

    def trained(name, folder=None, **how):
        fields = HEALTHY | RUNS[name][0]
        text = "few.txt" if fields.get("data.corpus") else "words.txt"
        config = Config().replace(fields | {"data.corpus": str(texts / text)})
        if folder is not None:
            train(config, folder, **how)
        elif name not in folders:
            folders[name] = tmp_path_factory.mktemp("runs") / name.replace(" ", "_")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(texts / "cache"))
                train(config, folders[name])
        return folder or folders[name]

    return trained


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def diagnoses(folder):
    return [line for line in lines_of(folder) if "diagnosis" in line]


@pytest.mark.parametrize("name", RUNS)
def test_the_fault_is_named_and_no_other(run, name):
    found = diagnoses(run(name))
    assert [line["diagnosis"] for line in found] == RUNS[name][1]
    for line in found:
        assert set(line) == {"step", "diagnosis", "message"}
        assert "\n" not in line["message"]


def test_the_state_is_called_unused_at_the_bigram_level(run, texts):
    folder = run("not carried")
    (found,) = diagnoses(folder)
    text = np.frombuffer((texts / "words.txt").read_bytes(), np.uint8)
    bounds = json.loads((folder / "about.json").read_text())["corpus"]
    train_bytes, valid_bytes = bounds["train_bytes"], bounds["valid_bytes"]
    valid = text[train_bytes : train_bytes + valid_bytes]
    level = ngram_levels(text[:train_bytes], valid, [1])[0].bits_per_byte
    bits = next(
        line["valid_bits_per_byte"]
        for line in lines_of(folder)
        if line["step"] == found["step"] and "valid_bits_per_byte" in line
    )
    assert abs(bits - level) < 0.06
    assert found["message"].startswith(f"{bits:.2f} bpb is this text's bigram level ({level:.2f})")
    # With the state carried the same network comes below a level that it cannot pass without.
    assert lines_of(run("carried"))[-1]["valid_bits_per_byte"] < level - 0.5


def test_faults_known_beforehand_are_said_before_the_first_update(run):
    lines = lines_of(run("crowded"))
    assert lines[0]["diagnosis"] == "streams_too_short" and lines[0]["step"] == 0


def test_overfitting_names_the_best_update(run):
    folder = run("by heart")
    (found,) = diagnoses(folder)
    scored = {
        line["step"]: line["valid_bits_per_byte"]
        for line in lines_of(folder)
        if "valid_bits_per_byte" in line and line["step"] <= found["step"]
    }
    best = min(scored, key=scored.get)
    assert f"best at update {best} ({scored[best]:.3f} bpb)" in found["message"]
    # It is said of the last checkpoint and not of the best.
    assert [d.code for d in overfitted(folder / "checkpoints" / "400")] == ["overfitting"]
    assert overfitted(folder / "checkpoints" / str(best)) == []


def test_a_run_that_is_stopped_and_continued_says_the_same(run, texts, tmp_path, monkeypatch):
    """And nothing twice, wherever it was stopped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(texts / "cache"))
    for stop in (125, 250, 325, None):
        run("by heart", tmp_path, stop_after=stop)
    assert diagnoses(tmp_path) == diagnoses(run("by heart"))
    folders = tmp_path, run("by heart")
    found, wanted = (read_metadata(f / "checkpoints" / "400").clock["diagnosis"] for f in folders)
    assert found == wanted and wanted["norm"] > 0
    figures = [line["step"] for line in lines_of(tmp_path) if "diagnosis" not in line]
    assert figures == list(range(25, 401, 25))


def test_evaluate_names_the_fault_too(run, charlstm):
    done = charlstm("evaluate", f"--checkpoint={run('not carried')}", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["diagnoses"]
    assert found["diagnosis"] == "state_unused" and "bigram level" in found["message"]
    done = charlstm("evaluate", f"--checkpoint={run('carried')}")
    assert done.returncode == 0 and "diagnosis" not in done.stdout, done.stderr


def test_without_a_state_greedy_text_is_a_walk_through_a_table_of_pairs(run, charlstm):
    """The next byte is a function of the last one, so the text soon goes in a circle."""
    folder = run("not carried")
    flags = "--temperature=0", "--num_bytes=300", "--noecho"
    done = charlstm("sample", f"--checkpoint={folder}", *flags)
    assert done.returncode == 0, done.stderr
    followers = {}
    for byte, following in zip(done.stdout[:300], done.stdout[1:300], strict=False):
        followers.setdefault(byte, set()).add(following)
    assert all(len(found) == 1 for found in followers.values())
    assert len(set(done.stdout[100:300])) == len(set(done.stdout[200:300])) < 27


def test_what_cannot_follow_a_state_is_refused(run, charlstm, tmp_path):
    checkpoint = f"--checkpoint={run('not carried')}"
    for command in (
        ("evaluate", "--dynamic"),
        ("evaluate", "--warm_up=9"),
        ("inspect", f"--output={tmp_path / 'page.html'}"),
    ):
        done = charlstm(command[0], checkpoint, *command[1:])
        assert done.returncode == 2 and "data.carry_state=false" in done.stderr
        assert len(done.stderr.splitlines()) == 1
