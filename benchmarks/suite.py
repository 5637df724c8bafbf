"""Runs several benchmarks one after another, each in its own process, within a time limit."""

import dataclasses
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks import common
from benchmarks.interleaved import ROOT


@dataclasses.dataclass(frozen=True)
class Run:
    """Names one benchmark and its flags."""

    name: str
    arguments: Sequence[str] = ()


def run_all(runs: Sequence[Run], out: str, seconds: float) -> list[str]:
    """Runs benchmarks in order, and ends the one that is still running when the time is up.

    A benchmark rewrites its report after every part, so the parts that were measured are kept in
    any case.

    Returns:
      One line for each benchmark that failed, was cut short, or was not started.
    """
    deadline = time.monotonic() + seconds
    troubles = []
    for run in runs:
        command = [sys.executable, "-m", f"benchmarks.{run.name}", f"--out={out}", *run.arguments]
        begin = time.monotonic()
        if begin >= deadline:
            troubles.append(f"{run.name}: not begun, the {seconds:.0f} s were over")
            continue
        common.say(f"== {shlex.join(command[1:])}")
        try:
            code = subprocess.run(
                command, cwd=ROOT, timeout=deadline - begin, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            troubles.append(f"{run.name}: cut short, the {seconds:.0f} s were over")
            continue
        if code:
            troubles.append(f"{run.name}: exit code {code}")
        common.say(f"== {run.name} took {time.monotonic() - begin:.0f} s")
    return troubles
