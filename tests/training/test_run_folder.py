"""One run folder, one run: the lock, who holds it, and whom it does not concern."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY
from run_folders import checkpoints, metrics

import charlstm
from charlstm.training import run_folder
from charlstm.training.run_folder import open_run_folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(run_folder, "SECONDS_UNTIL_LOCK_IS_FREE", 0.1)


def test_a_second_run_in_a_folder_is_refused_and_told_who_is_there(tmp_path):
    with (
        open_run_folder(tmp_path),
        pytest.raises(charlstm.UserError) as caught,
        open_run_folder(tmp_path),
    ):
        pass
    said = str(caught.value)
    assert f"another run is in {tmp_path}" in said and f"process {os.getpid()} on " in said
    assert "since 2" in said and "--workdir" in said and "\n" not in said


def test_the_folder_is_free_when_a_run_has_ended_however_it_ended(tmp_path):
    with pytest.raises(ValueError), open_run_folder(tmp_path):
        raise ValueError
    with open_run_folder(tmp_path):
        pass


def test_a_holder_that_cannot_be_read_is_no_obstacle_to_the_refusal(tmp_path):
    with open_run_folder(tmp_path):
        for content in (b"", b"\xff", b"[]", b"{}"):
            (tmp_path / run_folder.HOLDER_FILE).write_bytes(content)
            with pytest.raises(charlstm.UserError, match="another run"), open_run_folder(tmp_path):
                pass


def test_a_running_run_keeps_others_out_but_no_readers_and_its_lock_dies_with_it(
    charlstm, environment, text_file, tmp_path
):
    flags = [f"--corpus={text_file}", f"--workdir={tmp_path}", *TINY]
    flags += ["--config.training.num_updates=1000000"]
    command = [sys.executable, "-m", "charlstm", "train", *flags]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while len(checkpoints(tmp_path)) < 2 and first.poll() is None:
        time.sleep(0.02)
    second = charlstm("train", *flags)
    assert second.returncode == 2 and str(tmp_path) in second.stderr, second.stderr
    assert f"process {first.pid} on " in second.stderr.splitlines()[-1]
    assert charlstm("sample", f"--checkpoint={tmp_path}", "--num_bytes=5").returncode == 0
    assert charlstm("report", str(tmp_path)).returncode == 0
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    steps = [line["step"] for line in metrics(tmp_path) if "diagnosis" not in line]
    assert steps == list(range(5, 5 * len(steps) + 1, 5))  # the second run took none away
    again = charlstm("train", *flags, f"--stop_after={checkpoints(tmp_path)[-1] + 1}")
    assert again.returncode == 0 and "waiting for the run" not in again.stderr, again.stderr
