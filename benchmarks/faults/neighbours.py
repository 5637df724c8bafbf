"""Who else is in the folder of a run: a second run, and readers."""

import random
import signal
import time
from pathlib import Path

from benchmarks.faults.damages import reading_command
from benchmarks.faults.ends import NUM_UPDATES, Keeping, checkpoint, require, require_one_line
from benchmarks.faults.runs import Bench
from charlstm.checkpoint.reading import FOLDER, read_best, saved_steps
from charlstm.runtime import meshes
from charlstm.text_model import Model

READERS = ("sample", "evaluate", "inspect", "report")


def second_run(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Starts a second run in the folder of one that is under way; returns 1 if they met."""
    expected = bench.expected()
    keeping = Keeping.draw(rng)
    with bench.training(folder, *keeping.flags) as (first,):
        first.wait_until((folder / "config.json").exists)
        time.sleep(rng.uniform(0, expected.seconds / 4))
        # It stands still, so that it cannot end before the second one is refused.
        first.send(signal.SIGSTOP)
        second = bench.call(bench.train_command(folder, *keeping.flags))
        if second.returncode:
            require_one_line(second.returncode, second.stderr, str(folder), str(first.pid))
        else:
            is_over = checkpoint(folder, NUM_UPDATES).is_dir()
            require(is_over, "a second run is refused", second.stderr[-3000:])
        first.send(signal.SIGCONT)
        code = first.end()
        require(code == 0, "the first run ends with 0", f"{code}: {first.said[-3000:]}")
    expected.require_same_end(folder, keeping=keeping)
    return int(second.returncode != 0)


def readers(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Reads a run again and again while it saves and deletes; returns how often."""
    expected = bench.expected()
    keeping = Keeping(checkpoint_every=1, keep_last=1, keep_every=0)
    sharding = meshes.replicated(meshes.single_device_mesh())
    readings = 0
    with bench.training(folder, *keeping.flags) as (process,):
        process.wait_until(lambda: saved_steps(folder / FOLDER))
        done = bench.call(reading_command(bench, rng.choice(READERS), folder, folder.parent))
        said = done.stdout + done.stderr
        require(done.returncode == 0, "a reader that ends with 0", f"{done.returncode}: {said}")
        is_quiet = "Traceback" not in said and "passing over" not in said
        require(is_quiet, "a reader that complains of nothing", said)
        while process.is_alive:
            found, model, _ = read_best(Model, folder, sharding)
            expected.require_same_model(model, int(found.name))
            readings += 1
            time.sleep(rng.uniform(0, 0.05))
        code = process.end()
        require(code == 0, "the run ends with 0", f"{code}: {process.said[-3000:]}")
    expected.require_same_end(folder, keeping=keeping)
    return readings + 1
