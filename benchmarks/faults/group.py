"""Two processes of one run, one of which is killed or stopped."""

import random
import signal
import time
from pathlib import Path

from benchmarks.faults.ends import Keeping, require
from benchmarks.faults.runs import Bench, Process
from charlstm.checkpoint.reading import FOLDER, saved_steps

HEARTBEAT_SECONDS = 10
PLACES = ("compilation", "rename", "save")


def one_of_two(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Kills or stops one of two processes, then starts both again; returns the number of faults."""
    expected = bench.expected(processes=2)
    keeping = Keeping.draw(rng)
    flags = [*keeping.flags, f"--heartbeat_timeout={HEARTBEAT_SECONDS}"]
    fault, place = rng.choice(("killed", "stopped", "paused")), rng.choice(PLACES)
    with bench.training(folder, *flags, processes=2) as running:
        victim = running[rng.randrange(2)]
        other = running[1 - running.index(victim)]
        is_met = victim.wait_until(lambda: _has_come(place, folder))
        time.sleep(rng.uniform(0, 0.2))
        is_met = is_met and victim.is_alive and other.is_alive
        victim.send(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        if fault == "paused":
            time.sleep(rng.uniform(0, HEARTBEAT_SECONDS / 4))
            victim.send(signal.SIGCONT)
            codes = [process.end() for process in running]
            require(codes == [0, 0], "both end with 0 after a pause", _all_said(running))
        else:
            _require_loss_is_told(other, is_met)
            victim.send(signal.SIGCONT)  # it finds that it was given up
            code = victim.end()
            wanted = (-signal.SIGKILL,) if fault == "killed" else (1, -signal.SIGABRT)
            expected_end = f"{fault}: exit code {wanted[0]}"
            require(code in wanted or not is_met, expected_end, f"{code}: {victim.said[-3000:]}")
            require("Traceback" not in victim.said, "no traceback", victim.said[-3000:])
    bench.finish(folder, *flags, processes=2)
    expected.require_same_end(folder, keeping=keeping)
    return int(is_met)


def _has_come(place: str, folder: Path) -> bool:
    checkpoints = folder / FOLDER
    if place == "compilation":
        return (folder / "config.json").exists()
    if place == "rename":
        return bool(saved_steps(checkpoints))
    return bool(saved_steps(checkpoints)) and any(checkpoints.glob(".*.saving*"))


def _require_loss_is_told(other: Process, is_met: bool) -> None:
    """Makes sure that a process says that it lost the other, if it had not ended before."""
    code, said = other.end(), other.said
    is_told = code == 1 and "lost the others" in said
    # JAX may notice it first, and aborts with a report of its own.
    is_told = is_told or (code == -signal.SIGABRT and "another task died" in said)
    is_clear = "Traceback" not in said and "make room" not in said
    expected = "an end with exit code 1, or by JAX, that says that the others are lost"
    require((is_told or not is_met or code == 0) and is_clear, expected, f"{code}: {said[-3000:]}")


def _all_said(running: list[Process]) -> str:
    return "\n".join(f"{process.end()}: {process.said[-2000:]}" for process in running)
