"""`charlstm train` as users run it: real processes, real files, real signals."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY
from run_folders import checkpoints, metrics, parameters

from charlstm.checkpoint.reading import resolve


@pytest.fixture
def train(charlstm, text_file):
    def run(folder, *arguments, corpus=text_file, **options):
        return charlstm(
            "train", f"--corpus={corpus}", f"--workdir={folder}", *TINY, *arguments, **options
        )

    return run


@pytest.fixture(scope="module")
def uninterrupted(charlstm, text_file, tmp_path_factory):
    """A run folder of one process from the first to the last update."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = charlstm("train", f"--corpus={text_file}", f"--workdir={folder}", *TINY)
    assert done.returncode == 0, done.stderr
    return folder


def assert_refused(done, *says):
    """Exit code 2 and one line on standard error, beside plain notes on the way there."""
    assert done.returncode == 2, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("charlstm: ")]
    assert len(complaint) == 1 and "Traceback" not in done.stderr, done.stderr
    for words in says:
        assert words in complaint[0]


def test_a_run_leaves_its_folder_complete(uninterrupted):
    lines = metrics(uninterrupted)
    assert [line["step"] for line in lines] == list(range(5, 45, 5))
    for line in lines:
        assert line["bytes_per_second"] > 0
        assert 0 < line["train_bits_per_byte"] < 9
        evaluated = line["step"] % 20 == 0
        for key in ("valid_bits_per_byte", "valid_nats", "valid_accuracy"):
            assert (key in line) == evaluated
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert lines[-1]["train_bits_per_byte"] < lines[0]["train_bits_per_byte"]
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["model"]["hidden_size"] == 16
    shown = {entry.name for entry in uninterrupted.iterdir() if not entry.name.startswith(".")}
    assert shown == {
        "about.json",
        "config.json",
        "metrics.jsonl",
        "checkpoints",
    }


def test_samples_are_written(trained):
    samples = sorted(entry.name for entry in (trained / "samples").iterdir())
    assert samples == ["00000005.txt", "00000020.txt", "00000040.txt"]


def test_stopped_and_continued_equals_uninterrupted(train, uninterrupted, tmp_path):
    assert train(tmp_path, "--stop_after=13").returncode == 0
    assert metrics(tmp_path)[-1]["step"] == 13
    assert (tmp_path / "checkpoints" / "13").is_dir()
    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (parameters(tmp_path, 40) == parameters(uninterrupted, 40)).all()
    lines, whole = metrics(tmp_path), metrics(uninterrupted)
    assert lines[-1]["valid_bits_per_byte"] == whole[-1]["valid_bits_per_byte"]


def test_killed_at_random_moments_equals_uninterrupted(
    uninterrupted, text_file, environment, tmp_path
):
    """SIGKILL again and again, wherever it falls: start-up, compilation, update, save."""
    command = [sys.executable, "-m", "charlstm", "train", f"--corpus={text_file}"]
    command += [f"--workdir={tmp_path}", *TINY]
    seed = int.from_bytes(os.urandom(2), "little")
    print("moments drawn with seed", seed)  # shown if the test fails
    moments = random.Random(seed)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        # A moment after some number of checkpoints are there, so that every phase is met.
        wanted = moments.choice([0, 1, 2])
        seen = set(checkpoints(tmp_path))
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if len(set(checkpoints(tmp_path)) - seen) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills > 0
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (parameters(tmp_path, 40) == parameters(uninterrupted, 40)).all()
    assert [line["step"] for line in metrics(tmp_path)] == list(range(5, 45, 5))


def test_a_finished_run_is_left_alone(train, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = (folder / "metrics.jsonl").read_text()
    done = train(folder, "--config.model.alphabet=corpus")
    assert done.returncode == 0 and "nothing to do" in done.stderr
    assert (folder / "metrics.jsonl").read_text() == before


def test_the_best_checkpoint_outlives_restarts_kills_and_preemption(
    train, text_file, environment, tmp_path
):
    flags = ["--config.training.num_updates=1000000", "--config.training.evaluate_every=1000000"]
    flags += ["--config.training.checkpoint_every=5"]
    validated = train(tmp_path, "--stop_after=20")
    assert validated.returncode == 0, validated.stderr
    config = (*flags, "--config.optimizer.schedule=cosine")
    command = [sys.executable, "-m", "charlstm", "train", f"--corpus={text_file}"]
    command += [f"--workdir={tmp_path}", *TINY, *config]
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        newest = checkpoints(tmp_path)[-1]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while checkpoints(tmp_path)[-1] < newest + 10 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == code
        assert 20 in checkpoints(tmp_path) and checkpoints(tmp_path)[-1] > newest
    assert train(tmp_path, *config, f"--stop_after={checkpoints(tmp_path)[-1] + 1}").returncode == 0
    assert 20 in checkpoints(tmp_path)
    assert resolve(tmp_path).name == "20"


def test_a_run_goes_on_from_the_newest_checkpoint_that_is_whole(train, uninterrupted, tmp_path):
    assert train(tmp_path, "--stop_after=33").returncode == 0
    cut_short(tmp_path / "checkpoints" / "33")
    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    passed_over = tmp_path / "checkpoints" / "33"
    assert f"passing over the checkpoint {passed_over}: " in done.stderr
    assert "going on from update 30" in done.stderr
    assert (tmp_path / "checkpoints" / "33.damaged").is_dir()
    assert (parameters(tmp_path, 40) == parameters(uninterrupted, 40)).all()
    assert [line["step"] for line in metrics(tmp_path)] == list(range(5, 45, 5))


def test_last_best_and_permanent_checkpoints_are_kept(train, tmp_path):
    done = train(tmp_path, "--config.training.keep_last=1", "--config.training.keep_every=20")
    assert done.returncode == 0, done.stderr
    assert checkpoints(tmp_path) == [20, 40]


def test_weights_of_another_run_start_a_new_one(train, uninterrupted, tmp_path):
    done = train(tmp_path, f"--init_from={uninterrupted}", "--stop_after=5")
    assert done.returncode == 0, done.stderr
    # The new run begins where the other had come to.
    assert (
        metrics(tmp_path)[0]["train_bits_per_byte"]
        < metrics(uninterrupted)[2]["train_bits_per_byte"]
    )
    # The same command goes on, as after any end.
    again = train(tmp_path, f"--init_from={uninterrupted}", "--stop_after=6")
    assert again.returncode == 0 and "going on from update 5" in again.stderr, again.stderr


def test_print_config_shows_the_result_and_stops(charlstm, tmp_path):
    done = charlstm(
        "train", f"--workdir={tmp_path / 'x'}", "--config.model.hidden_size", "99", "--print_config"
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"]["hidden_size"] == 99
    assert not (tmp_path / "x").exists()


DIVERGING = (
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=1e30",
    "--config.optimizer.clip_norm=0",
)


def test_losses_that_are_not_finite_are_skipped_counted_and_end_the_run(train, tmp_path):
    limit = "--config.training.max_skipped_in_a_row=7"
    done = train(tmp_path, *DIVERGING, limit, "--config.training.checkpoint_every=0")
    assert done.returncode == 1
    complaint = done.stderr.splitlines()[-1]
    assert "in a row" in complaint and "optimizer.learning_rate" in complaint
    assert checkpoints(tmp_path) == []


def test_parameters_that_are_not_finite_are_never_saved(train, uninterrupted, tmp_path):
    weights = f"--init_from={uninterrupted}"
    done = train(tmp_path, weights, *DIVERGING, "--config.training.checkpoint_every=1")
    assert done.returncode == 1
    assert "optimizer.learning_rate" in done.stderr.splitlines()[-1]
    for saved in checkpoints(tmp_path):
        assert np.isfinite(parameters(tmp_path, saved)).all()


class TestBadInput:
    """One line, exit code 2, nothing lost."""

    def test_no_such_file(self, train, tmp_path):
        assert_refused(train(tmp_path, corpus=tmp_path / "absent.txt"), "absent.txt")

    def test_unknown_corpus(self, train, tmp_path):
        assert_refused(train(tmp_path, corpus="shakespear"), "shakespeare")

    def test_empty_file(self, train, tmp_path):
        (tmp_path / "empty.txt").touch()
        assert_refused(train(tmp_path / "run", corpus=tmp_path / "empty.txt"), "empty")

    def test_text_shorter_than_a_window(self, train, tmp_path):
        (tmp_path / "short.txt").write_text("to be")
        done = train(tmp_path / "run", corpus=tmp_path / "short.txt")
        assert_refused(done)

    def test_training_split_shorter_than_a_window(self, train, tmp_path):
        (tmp_path / "short.txt").write_text("to be or not " * 4)
        done = train(
            tmp_path / "run",
            "--config.data.window_length=60",
            corpus=tmp_path / "short.txt",
        )
        assert_refused(done, "data.window_length")

    def test_unknown_field(self, train, tmp_path):
        done = train(tmp_path, "--config.model.hiddensize=3")
        assert_refused(done, "did you mean model.hidden_size")

    def test_wrong_type(self, train, tmp_path):
        done = train(tmp_path, "--config.model.hidden_size=big")
        assert_refused(done, "model.hidden_size=big", "whole number")

    def test_unknown_flag_and_command(self, charlstm):
        assert_refused(charlstm("train", "--wrokdir=x"), "wrokdir")
        assert_refused(charlstm("trian"), "did you mean train")

    def test_unwritable_run_folder(self, train, tmp_path):
        (tmp_path / "file").touch()
        assert_refused(train(tmp_path / "file" / "run"), "--workdir")

    def test_no_room_for_a_checkpoint(self, train, environment, tmp_path):
        """As on a full disk: from some size on, a file cannot be written."""
        limited = ("bash", "-c", 'ulimit -f 40; exec "$@"', "bash")  # in kB
        # One array alone is larger, 64 x 256 floats: how many of the smaller ones share a file
        # is chance.
        sizes = "--config.model.hidden_size=64"
        # Nor are programs written, broken off, for other tests to find.
        reading = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000"}
        done = train(tmp_path, sizes, prefix=limited, env=environment | reading)
        assert_refused(done, "could not save", "--workdir")
        # With room again, the same command ends well.
        assert train(tmp_path, sizes).returncode == 0

    def test_corpus_changed_under_a_run(self, train, trained, text_file, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        changed = tmp_path / "changed.txt"
        changed.write_bytes(text_file.read_bytes()[::-1])
        before = snapshot(folder)
        done = train(folder, "--config.model.alphabet=corpus", corpus=changed)
        assert_refused(done, "has changed", "--init_from")
        assert snapshot(folder) == before

    def test_other_sizes_under_a_run(self, train, trained, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        before = snapshot(folder)
        done = train(folder, "--config.model.alphabet=corpus", "--config.model.hidden_size=17")
        assert_refused(done, "model.hidden_size was 16 and is now 17")
        assert snapshot(folder) == before

    def test_weights_that_do_not_fit(self, train, trained, tmp_path):
        done = train(tmp_path / "run", f"--init_from={trained}", "--config.model.alphabet=bytes")
        assert_refused(done, "alphabet")

    def test_no_checkpoint_is_whole(self, train, trained, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        for step in checkpoints(folder):
            cut_short(folder / "checkpoints" / str(step))
        before = snapshot(folder)
        done = train(folder, "--config.model.alphabet=corpus", "--config.training.num_updates=50")
        assert_refused(done, str(folder), "is whole", "--workdir")
        assert snapshot(folder) == before

    @pytest.mark.parametrize("source", ["nothing", "trained"])
    def test_weights_for_a_run_that_has_begun_without_them(self, train, trained, source, tmp_path):
        """Not even if they are those of the run itself."""
        folder, weights = tmp_path / "run", trained if source == "trained" else tmp_path / source
        shutil.copytree(trained, folder)
        before = snapshot(folder)
        done = train(folder, "--config.model.alphabet=corpus", f"--init_from={weights}")
        assert_refused(done, str(folder), f"--init_from={weights}", "--workdir")
        assert snapshot(folder) == before


def cut_short(checkpoint):
    """Truncates the largest file of a checkpoint to half of its length."""
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def snapshot(folder):
    """Every file below the folder with its content, but for the lock."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != ".lock"}
