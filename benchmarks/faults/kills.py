"""Runs that are killed, or asked to end, at random moments and at chosen places."""

import random
import shutil
import signal
import time
from pathlib import Path

from benchmarks.faults.ends import NUM_UPDATES, Keeping, checkpoint, figures, require
from benchmarks.faults.runs import EVALUATE_EVERY, Bench, Process
from charlstm.checkpoint.reading import FOLDER, saved_steps
from charlstm.runtime.preemption import EXIT_INTERRUPTED, EXIT_SAVED

PLACES = ("moment", "start", "save", "deletion", "validation", "rename", "call")
# System calls that change what is on the disk; strace ends the process as it makes one.
CALLS = ("rename,renameat,renameat2", "unlink,unlinkat,rmdir", "fsync,fdatasync", "mkdir,mkdirat")


def killed(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Kills a run several times, then lets it end; returns the number of kills."""
    expected = bench.expected()
    keeping = Keeping.draw(rng)
    kills = 0
    for _ in range(rng.randint(1, 4)):
        place = rng.choice(PLACES)
        prefix = _strace(rng) if place == "call" else []
        with bench.training(folder, *keeping.flags, prefix=prefix) as (process,):
            if not prefix:
                _wait_for(place, process, folder, expected.seconds, rng)
                process.send(signal.SIGKILL)
            code = process.end()
            require(code in (0, -signal.SIGKILL), "0 or an end by SIGKILL", process.said[-3000:])
            require("Traceback" not in process.said, "no traceback", process.said[-3000:])
            kills += code != 0
    bench.finish(folder, *keeping.flags)
    expected.require_same_end(folder, keeping=keeping)
    return kills


def signalled(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Sends signals to a run, most of them early, then lets it end; returns their number."""
    expected = bench.expected()
    keeping = Keeping.draw(rng)
    signals = 0
    for _ in range(rng.randint(1, 4)):
        number = rng.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGINT))
        moment = rng.uniform(0, 1 if rng.random() < 0.6 else expected.seconds)
        with bench.training(folder, *keeping.flags) as (process,):
            process.wait_until(process.listens)
            time.sleep(moment)
            process.send(number)
            code, said = process.end(), process.said
        wanted = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_SAVED
        is_over = checkpoint(folder, NUM_UPDATES).is_dir()
        found = f"{code}: {said[-3000:]}"
        require(code == wanted or (code == 0 and is_over), f"{wanted}, or 0 at the end", found)
        require("Traceback" not in said, "no traceback", found)
        signals += 1
    bench.finish(folder, *keeping.flags)
    # A sample that a signal met is left off.
    expected.require_same_end(folder, keeping=keeping, all_samples=False)
    return signals


def _wait_for(
    place: str, process: Process, folder: Path, seconds: float, rng: random.Random
) -> None:
    """Waits for a place in a run; returns as well if the run ends before."""
    checkpoints = folder / FOLDER
    before = saved_steps(checkpoints)[:1]
    delay = rng.uniform(0, 0.02)

    def validates() -> bool:
        lines = figures(folder)
        return bool(lines) and lines[-1]["step"] % EVALUATE_EVERY == EVALUATE_EVERY - 1

    if place in ("moment", "call"):
        time.sleep(rng.uniform(0, seconds))
    elif place == "start":
        time.sleep(rng.uniform(0, 2))
    elif place == "save":
        process.wait_until(lambda: any(checkpoints.glob(".*.saving*")))
        time.sleep(delay * 5)
    elif place == "deletion":
        process.wait_until(lambda: any(checkpoints.glob(".*.deleted")))
        time.sleep(delay / 10)
    elif place == "validation":
        process.wait_until(validates)
        time.sleep(delay)
    elif place == "rename":
        process.wait_until(lambda: saved_steps(checkpoints)[:1] != before)
        time.sleep(delay / 10)


def _strace(rng: random.Random) -> list[str]:
    """Returns what kills a command at a system call of a kind, the n-th of one of its threads."""
    calls, count = rng.choice(CALLS), rng.randint(1, 40)
    if shutil.which("strace") is None:
        return []
    options = f"trace={calls}", f"inject={calls}:signal=SIGKILL:when={count}"
    quiet = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]
    return [*quiet, *(word for option in options for word in ("-e", option))]
