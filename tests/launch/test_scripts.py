"""tpu.sh and the `run` section of sky.yaml, with processes of this machine."""

import signal
import subprocess
import sys

import psutil
import yaml
from launched_runs import (
    LAUNCH,
    NUM_UPDATES,
    final_parameters,
    last_logged_step,
    wait_until,
)
from run_folders import checkpoints


def test_tpu_script_starts_a_saved_run_again_until_it_is_done(user, train_flags, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [LAUNCH / "tpu.sh", *train_flags(run), "--num_cpu_devices=1"],
        env=user | {"VIRTUAL_ENV": sys.prefix},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: last_logged_step(run) > 0, "an update", alive=lambda: process.poll() is None)
    (train,) = psutil.Process(process.pid).children()
    train.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    (step,) = (step for step in checkpoints(run) if f"saved at update {step};" in said)
    assert f"going on from update {step} of" in said
    assert checkpoints(run)[-1] == NUM_UPDATES


def test_tpu_script_passes_a_failure_on(user, tmp_path):
    done = subprocess.run(
        [LAUNCH / "tpu.sh", "--config=nosuch", f"--workdir={tmp_path}"],
        env=user | {"VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2 and "no configuration is named 'nosuch'" in done.stderr


def test_skypilot_nodes_train_together(user, train_flags, free_port, uninterrupted, tmp_path):
    script = yaml.safe_load((LAUNCH / "sky.yaml").read_text())["run"]
    # Two nodes of this test are one machine, on which a fixed port may be taken.
    assert script.count(":1234") == 1
    script = script.replace(":1234", f":{free_port()}")
    variables = {
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2",
        "ARGS": " ".join(train_flags(tmp_path / "run")),
    }
    processes = [
        subprocess.Popen(
            ["bash", "-c", script],
            env=user | variables | {"SKYPILOT_NODE_RANK": str(node)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert (final_parameters(tmp_path / "run") == final_parameters(uninterrupted)).all()
