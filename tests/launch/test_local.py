"""`launch/local.py` as users run it."""

import os
import runpy
import signal
import subprocess
import sys
import time

import pytest
from processes import CHEAP, LOCAL, SMALL
from run_folders import checkpoints, metrics

ENDLESS = "--config.training.num_updates=1000000"


@pytest.fixture
def local(environment, text_file):
    """Starts `launch/local.py` with two processes; it is ended with the test."""
    started = []

    def run(folder, *arguments):
        command = [sys.executable, str(LOCAL), "--num_processes=2", "--devices_per_process=1", "--"]
        command += [f"--corpus={text_file}", f"--workdir={folder}", *SMALL, *arguments]
        process = subprocess.Popen(
            command,
            env=environment | CHEAP,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def children(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(number) for number in file.read().split()]


def wait_until(done, process, seconds=120):
    until = time.monotonic() + seconds
    while not done():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.05)


def is_alive(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_signal_is_passed_on_and_all_save(local, tmp_path):
    process = local(tmp_path, ENDLESS)
    wait_until(lambda: len(metrics(tmp_path)) > 3, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    (saved,) = checkpoints(tmp_path)
    assert f"[0] charlstm: saved at update {saved}" in output
    assert "devices: 2 × cpu in 2 processes" in output


def test_the_first_death_ends_the_rest(local, tmp_path):
    process = local(tmp_path, ENDLESS)
    wait_until(lambda: len(metrics(tmp_path)) > 3, process)
    first, second = children(process)
    os.kill(second, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, 75)
    assert "local.py: process 1 was killed by SIGKILL" in output
    assert not is_alive(first)


def test_of_deaths_seen_together_the_kill_is_named():
    failure = runpy.run_path(str(LOCAL))["_failure"]
    assert failure([1, -9]) == (1, -9)
    assert failure([None, 1]) == (1, 1)
    assert failure([0, 75, None]) is None


def test_its_own_death_leaves_nobody_behind(local, tmp_path):
    process = local(tmp_path, ENDLESS)
    wait_until(lambda: len(metrics(tmp_path)) > 3, process)
    both = children(process)
    process.kill()
    until = time.monotonic() + 60
    while any(map(is_alive, both)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_alive, both))


def test_bad_input_keeps_its_exit_code(local, tmp_path):
    process = local(tmp_path, "--config.data.num_streams=7")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    for number in (0, 1):
        assert f"[{number}] charlstm: data.num_streams=7 cannot be shared out" in output
