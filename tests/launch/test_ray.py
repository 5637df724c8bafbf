"""launch/ray_train.py on a real Ray cluster of one node, where Ray is installed.

Ray is not among the tests' packages, because it is large: pip install 'ray[train]'.
"""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from launched_runs import (
    LAUNCH,
    final_parameters,
    last_logged_step,
    logged_processes,
    said,
    wait_until,
)
from run_folders import checkpoints

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="no Ray: pip install 'ray[train]'"
)


@pytest.fixture(scope="module")
def cluster(user, free_port, tmp_path_factory):
    """The environment of a program that uses a Ray cluster on the loopback interface."""
    port = free_port()
    environment = user | {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
    }
    head = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    head += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    log = (tmp_path_factory.mktemp("ray") / "log").open("w+")
    ray = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), *head],
        env={name: value for name, value in environment.items() if name != "RAY_ADDRESS"},
        stdout=log,
        stderr=log,
    )

    def is_up():
        log.seek(0)
        return "Ray runtime started" in log.read()

    wait_until(is_up, "a Ray cluster", alive=lambda: ray.poll() is None)
    yield environment
    for process in [*psutil.Process(ray.pid).children(recursive=True), ray]:
        process.kill()
    ray.wait()
    log.close()


@pytest.fixture
def train(cluster, train_flags, tmp_path):
    """Starts the small run on two workers; ends it if the test fails."""
    command = [sys.executable, LAUNCH / "ray_train.py", "--num_workers=2", "--"]
    with logged_processes(tmp_path) as start:
        yield lambda: start([*command, *train_flags(tmp_path / "run")], cluster)


def ranks(run):
    """The processes of a run folder, by their places."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "train" in words and f"--workdir={run}" in words and "ray_train.py" not in str(words):
            found[int(process.environ()["PROCESS_ID"])] = process
    return found


def standing_still(run, process):
    """Stops the processes of a run after their first updates; returns them by their places."""
    wait_until(lambda: last_logged_step(run) > 0, "an update", alive=lambda: process.poll() is None)
    stopped = ranks(run)
    for rank in stopped.values():
        rank.suspend()
    assert sorted(stopped) == [0, 1]
    return stopped


def test_told_to_save_the_next_call_goes_on_exactly(train, uninterrupted, tmp_path):
    run = tmp_path / "run"
    first = train()
    stopped = standing_still(run, first)
    stopped[1].send_signal(signal.SIGTERM)
    for rank in stopped.values():
        rank.resume()
    assert first.wait(120) == 75, said(first)
    step = checkpoints(run)[-1]
    again = train()
    assert again.wait(240) == 0, said(again)
    assert f"going on from update {step} of" in said(again)
    assert (final_parameters(run) == final_parameters(uninterrupted)).all()


def test_a_killed_rank_is_started_again_with_all_others(train, uninterrupted, tmp_path):
    run = tmp_path / "run"
    process = train()
    stopped = standing_still(run, process)
    stopped[1].kill()
    stopped[0].resume()
    assert process.wait(240) == 0, said(process)
    assert said(process).count("devices: 2 × cpu in 2 processes") == 2
    assert (final_parameters(run) == final_parameters(uninterrupted)).all()
