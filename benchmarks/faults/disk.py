"""Runs that find the disk full."""

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.ends import Keeping, require_one_line
from benchmarks.faults.runs import Bench

ROOM = "64m"


def full(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Fills the disk under a run, then makes room; returns 1 if the run noticed."""
    expected = bench.expected()
    keeping = Keeping.draw(rng)
    is_small_disk = rng.random() < 0.5
    file_kb, disk_kb = rng.randint(1, 24), rng.randint(64, 1024)
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        limited = is_small_disk and stack.enter_context(_small_disk(folder, disk_kb))
        # From some size on a file cannot be written, as if the disk were full.
        prefix = [] if limited else ["bash", "-c", f'ulimit -f {file_kb}; exec "$@"', "bash"]
        done = bench.call([*prefix, *bench.train_command(folder, *keeping.flags)])
        if done.returncode:
            require_one_line(done.returncode, done.stderr, str(folder))
        if limited:
            _mount("remount", f"size={ROOM}", folder)
        bench.finish(folder, *keeping.flags)
        expected.require_same_end(folder, keeping=keeping)
    return int(done.returncode != 0)


@contextlib.contextmanager
def _small_disk(folder: Path, kb: int) -> Iterator[bool]:
    """Mounts a disk of so many kB in memory; yields whether that is allowed."""
    is_mounted = hasattr(os, "geteuid") and os.geteuid() == 0 and _mount(f"size={kb}k", folder)
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _mount(*options_and_folder: str | Path) -> bool:
    *options, folder = map(str, options_and_folder)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
