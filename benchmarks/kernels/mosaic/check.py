"""Checks and measures the kernels of `model.recurrence=pallas_gpu` on a GPU, what matters first.

  python -m benchmarks.kernels.mosaic.check --seconds=60 --build=DIR

First with the clusters that are resident on every such chip, then with larger ones. For those it
asks the GPU how many clusters it holds at once, with a small program that nvcc builds in the folder
of `--build`, or in a temporary one: a kernel whose blocks are not all resident waits for ever. Each
result is a line, printed at once. The exit code is 1 if something is wrong or was not reached.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app

from benchmarks.kernels.checking import SECONDS, Checks, on_a_gpu
from benchmarks.kernels.cuda.build import build
from charlstm.errors import UserError

NUM_BLOCKS = 128  # that a kernel needs at once

# In order of worth: sizes, and blocks of a cluster forward and backward; 0 for what charlstm takes.
CASES = (
    ("1x1024-B64-T128", (0, 0)),
    ("1x1024-B256-T128", (0, 0)),
    ("1x512-B64-T128", (0, 0)),
    ("1x1024-B64-T128", (1, 8)),
    ("1x1024-B64-T128", (2, 4)),
    ("1x1024-B64-T128", (4, 2)),
    ("1x1024-B256-T128", (2, 8)),
    ("1x1024-B128-T128", (2, 8)),
    ("1x1024-B256-T128", (1, 4)),
    ("1x512-B64-T128", (2, 8)),
    ("1x512-B256-T128", (2, 8)),
)


def main(argv: Sequence[str]) -> None:
    """Runs the cases until the time is over."""
    del argv
    with on_a_gpu() as folder:
        resident = resident_blocks(folder)
        checks = Checks(SECONDS.value)
        for sizes, clusters in cases_that_fit(resident):
            checks.layer("mosaic", sizes, clusters, folder)
        checks.end()


def resident_blocks(folder: Path) -> dict[int, int]:
    """Returns how many blocks are resident at once, by the size of their clusters.

    What cannot be found out is left out.
    """
    try:
        build(folder, ["residency"])
        done = subprocess.run(
            [folder / "residency"], capture_output=True, text=True, timeout=20.0, check=False
        )
    except (UserError, subprocess.TimeoutExpired) as error:
        print(f"how many blocks are resident is not known: {error}", flush=True)
        return {}
    print(done.stdout, end="", flush=True)
    found = re.findall(r"clusters of (\d+): (\d+) blocks are resident", done.stdout)
    return {int(size): int(blocks) for size, blocks in found}


def cases_that_fit(resident: dict[int, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the cases, each with the largest clusters up to its own that are resident at once."""
    done = set()
    for sizes, clusters in CASES:
        fitting = sizes, tuple(_fitting(size, resident) for size in clusters)
        if fitting not in done:
            yield fitting
        done.add(fitting)


def _fitting(size: int, resident: dict[int, int]) -> int:
    while size > 1 and resident.get(size, NUM_BLOCKS) < NUM_BLOCKS:
        size //= 2
    return size


if __name__ == "__main__":
    app.run(main)
