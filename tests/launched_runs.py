"""What the tests of launchers share: a small run, starting it, and looking into its folder."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from conftest import TINY
from processes import CHEAP
from run_folders import parameters

LAUNCH = Path(__file__).parents[1] / "launch"
NUM_UPDATES = 300
SAVE_EVERY = 100

# Long enough to be met in the middle; nothing is saved but every SAVE_EVERY updates, at the end,
# and when somebody asks.
SMALL = (
    *TINY,
    f"--config.training.num_updates={NUM_UPDATES}",
    f"--config.training.checkpoint_every={SAVE_EVERY}",
    "--config.training.keep_last=100",
    "--config.training.evaluate_every=0",
    "--config.training.log_every=10",
)


def launched_environment(environment):
    """What a user's shell would have: this Python's programs first.

    Beside that it spares XLA what such a run does not repay.
    """
    programs = Path(sys.executable).parent
    return environment | CHEAP | {"PATH": f"{programs}{os.pathsep}{environment['PATH']}"}


def last_logged_step(folder):
    """The update of the newest whole line of metrics; 0 if there is none."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def final_parameters(folder):
    """All numbers of the model after the last update, in one array."""
    return parameters(folder, NUM_UPDATES)


def wait_until(holds, what, seconds=180, alive=lambda: True):
    """Waits until `holds()`; fails after `seconds`, or when nothing is `alive()` to bring it."""
    begun = asked = time.monotonic()
    while not holds():
        time.sleep(0.01)
        now = time.monotonic()
        assert now < begun + seconds, f"{what}: not within {seconds} s"
        if now > asked + 1:
            assert alive() or holds(), f"ended before {what}"
            asked = now


@contextlib.contextmanager
def logged_processes(folder):
    """Gives a function that starts a process with a log in a folder; kills all at the end."""
    started = []

    def start(command, environment):
        log = (folder / f"log-{len(started)}").open("w+")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        started[-1].log = log
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.log.close()


def said(process):
    """What a process of `logged_processes` has written so far."""
    process.log.seek(0)
    return process.log.read()
