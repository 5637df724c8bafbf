"""Runs that are ended, in whatever way, and go on with other processes and devices."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import SMALL, Group, free_port, run_together
from run_folders import checkpoints, curve, metrics, parameters

from charlstm.checkpoint.metadata import read_metadata

ENDLESS = "--config.training.num_updates=1000000"
SIXTY = "--config.training.num_updates=60"
# Nothing is found compiled, so that a signal can meet a compilation.
COMPILING = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@pytest.fixture
def start(environment, text_file, tmp_path_factory):
    """Starts a group of processes; all are ended with the test."""
    groups = []

    def run(processes, folder, *arguments, corpus=text_file, devices=1, **variables):
        flags = [f"--corpus={corpus}", f"--workdir={folder}", *SMALL]
        flags += [f"--num_cpu_devices={devices}", *arguments]
        group = Group(processes, flags, environment | variables, tmp_path_factory.mktemp("output"))
        groups.append(group)
        return group

    yield run
    for group in groups:
        group.kill()


def test_goes_on_with_other_processes_and_devices(start, tmp_path):
    """The same bytes, the same carry, the same loss curve, and a model for one process."""
    whole = start(1, tmp_path / "whole", SIXTY)
    assert whole.wait() == [0], whole.text()
    begun = start(2, tmp_path / "begun", SIXTY, "--stop_after=30")
    assert begun.wait() == [0, 0], begun.text()
    wanted = curve(tmp_path / "whole")
    for processes, devices, mesh in (1, 2, ()), (4, 1, ("--config.mesh.shard=parameters",)):
        folder = tmp_path / f"continued{processes}"
        shutil.copytree(tmp_path / "begun", folder)
        group = start(processes, folder, SIXTY, *mesh, devices=devices)
        assert group.wait() == [0] * processes, group.text()
        assert "going on from update 30" in group.text()
        np.testing.assert_allclose(curve(folder), wanted, rtol=1e-5)
    assert checkpoints(folder) == [30, 60]
    flags = f"--checkpoint={folder}", "--num_bytes=20", "--noecho"
    sampled = subprocess.run(
        [sys.executable, "-m", "charlstm", "sample", *flags],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=False,
    )
    assert sampled.returncode == 0 and len(sampled.stdout) >= 20, sampled.stderr


def test_a_signal_to_one_process_saves_all(start, tmp_path):
    group = start(2, tmp_path, ENDLESS)
    group.wait_until(lambda: len(metrics(tmp_path)) > 5)
    group.processes[1].send_signal(signal.SIGUSR1)
    assert group.wait(60) == [75, 75], group.text()
    (saved,) = checkpoints(tmp_path)
    assert metrics(tmp_path)[-1]["step"] == saved
    assert f"saved at update {saved}" in group.outputs[0].read_text()
    # Interrupted from the keyboard it saves just as well.
    group = start(1, tmp_path, ENDLESS)
    group.wait_until(lambda: metrics(tmp_path)[-1]["step"] > saved + 5)
    group.processes[0].send_signal(signal.SIGINT)
    assert group.wait(60) == [130], group.text()
    assert checkpoints(tmp_path)[-1] == metrics(tmp_path)[-1]["step"]


def test_a_signal_before_the_first_update_ends_all_at_once(start, tmp_path):
    group = start(2, tmp_path, ENDLESS, **COMPILING)
    group.wait_until((tmp_path / "config.json").exists)  # written before the compilation
    group.processes[1].send_signal(signal.SIGTERM)
    assert group.wait(60) == [75, 75], group.text()
    assert checkpoints(tmp_path) == []


def test_a_signal_while_the_others_are_awaited_ends_at_once(environment, text_file, tmp_path):
    port = 20000 + os.getpid() % 10000
    place = {"NUM_PROCESSES": "2", "PROCESS_ID": "0"}
    place["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "charlstm", "train", f"--corpus={text_file}"]
    command.append(f"--workdir={tmp_path}")
    process = subprocess.Popen(command, env=environment | place, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()  # it listens, and waits
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    # Far less than the 300 seconds for which it would have waited.
    assert process.wait(60) == 75


def test_a_signal_does_not_wait_for_an_evaluation(start, tmp_path):
    text = tmp_path / "long.txt"
    text.write_bytes(np.random.default_rng(0).integers(97, 123, 2**21, np.uint8).tobytes())
    options = (
        ENDLESS,
        "--config.data.valid_size=0.9",
        "--config.model.hidden_size=128",
        "--config.training.log_every=1",
        "--config.training.evaluate_every=5",
    )
    group = start(2, tmp_path / "run", *options, corpus=text)
    # The line of update 5 is written when its evaluation, which takes many seconds, is done.
    group.wait_until(lambda: len(metrics(tmp_path / "run")) == 4)
    time.sleep(1)
    assert len(metrics(tmp_path / "run")) == 4
    group.processes[0].send_signal(signal.SIGTERM)
    assert group.wait(60) == [75, 75], group.text()
    assert checkpoints(tmp_path / "run") == [5]
    line = metrics(tmp_path / "run")[-1]
    assert line["step"] == 5 and "valid_bits_per_byte" not in line


def test_an_evaluation_that_was_left_off_is_made_up_for(start, tmp_path):
    """Also where it was the last one, and no update is left to make."""
    options = SIXTY, "--config.training.log_every=30", "--stop_after=30"
    group = start(1, tmp_path, *options, "--config.training.sample_every=0")
    assert group.wait() == [0], group.text()
    assert "valid_bits_per_byte" not in metrics(tmp_path)[-1]
    again = start(2, tmp_path, *options, "--config.training.evaluate_every=30")
    assert again.wait() == [0, 0], again.text()
    (line,) = metrics(tmp_path)
    saved = read_metadata(tmp_path / "checkpoints" / "30")
    assert saved.metrics["valid_bits_per_byte"] == line["valid_bits_per_byte"] > 0


def test_a_killed_process_ends_the_others_with_a_clear_message(start, tmp_path):
    group = start(2, tmp_path, ENDLESS, "--config.training.checkpoint_seconds=0.5")
    group.wait_until(lambda: len(checkpoints(tmp_path)) == 2)
    group.processes[1].kill()
    codes = group.wait(60)
    assert codes[0] not in (0, 75) and codes[1] == -signal.SIGKILL
    assert "lost the others" in group.outputs[0].read_text()
    # What was saved is whole, and the run goes on from there.
    saved = checkpoints(tmp_path)[-1]
    again = start(1, tmp_path, ENDLESS, f"--stop_after={saved + 3}")
    assert again.wait() == [0], again.text()
    assert f"going on from update {saved}" in again.text()


def test_a_process_that_is_killed_during_a_save_is_not_taken_for_a_full_disk(start, tmp_path):
    """The other learns of it from the save: a barrier, or a sum over both, that does not come."""
    every_update = (
        "--config.training.checkpoint_every=1",
        "--config.training.updates_per_dispatch=1",
    )
    group = start(2, tmp_path, ENDLESS, *every_update)
    group.wait_until(lambda: len(checkpoints(tmp_path)) == 2)
    group.wait_until(lambda: list((tmp_path / "checkpoints").glob(".*.saving*")))
    group.processes[1].kill()
    codes = group.wait(100)
    assert codes == [1, -signal.SIGKILL], group.text()
    said = group.outputs[0].read_text()
    assert "lost the others" in said and "make room" not in said and "Traceback" not in said


def test_ended_at_random_moments_equals_uninterrupted(start, tmp_path):
    """SIGTERM again and again, wherever it falls: import, compilation, evaluation, sample, save."""
    options = (
        SIXTY,
        "--config.training.log_every=6",
        "--config.training.evaluate_every=12",
        "--config.training.sample_every=24",
        "--config.training.checkpoint_every=18",
    )
    whole = start(1, tmp_path / "whole", *options, **COMPILING)
    begin = time.monotonic()
    assert whole.wait() == [0], whole.text()
    length = time.monotonic() - begin
    seed = int.from_bytes(os.urandom(2), "little")
    print("moments drawn with seed", seed)  # shown if the test fails
    moments = random.Random(seed)
    folder = tmp_path / "ended"
    for _ in range(3):
        group = start(1, folder, *options, **COMPILING)
        time.sleep(moments.uniform(0.1, 1) * length)
        group.processes[0].send_signal(signal.SIGTERM)
        (code,) = group.wait(60)
        assert code in (0, 75), group.text()
    last = start(1, folder, *options)
    assert last.wait() == [0], last.text()
    assert (parameters(folder, 60) == parameters(tmp_path / "whole", 60)).all()


TWICE = """
import sys
import jax

address, process, folder, text = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process), cluster_detection_method="deactivate")
import charlstm
from charlstm.errors import Preempted

config = charlstm.Config().replace({
    "data.corpus": text, "data.num_streams": 4, "data.window_length": 8,
    "model.hidden_size": 8, "model.alphabet": "corpus", "optimizer.warmup_updates": 2,
    "training.num_updates": 20, "training.sample_every": 0, "training.evaluate_every": 0,
})
try:
    charlstm.train(config, folder, stop=lambda: 75)
except Preempted:
    print("preempted")
charlstm.train(config, folder)
"""


def test_the_same_processes_train_again_after_they_were_stopped(environment, text_file, tmp_path):
    """What process 0 decided for the first training does not stop another in the second."""
    address = f"127.0.0.1:{free_port()}"
    commands = [
        [sys.executable, "-c", TWICE, address, process, tmp_path / "run", text_file]
        for process in range(2)
    ]
    both = run_together(commands, [environment] * 2, 120)
    assert [code for code, _, _ in both] == [0, 0], both
    assert all("preempted" in output for _, output, _ in both)
    assert checkpoints(tmp_path / "run")[-1] == 20
