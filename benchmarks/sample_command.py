"""Measures how fast `charlstm sample` makes text."""

import subprocess
import sys
import time
from pathlib import Path

PROMPT = "The king and all his men were "
_FEW = 64  # bytes of the short run


def bytes_in(seconds: float, run: Path, num_samples: int = 1) -> int:
    """Returns about how many bytes of each text the command makes in so many seconds."""
    num_bytes, taken = 1000, _more_seconds(run, num_samples, 1000)
    while taken < seconds / 4:
        num_bytes *= 4
        taken = _more_seconds(run, num_samples, num_bytes)
    return round(num_bytes * seconds / taken)


def bytes_per_second(run: Path, num_samples: int, num_bytes: int) -> float:
    """Returns the rate of all texts together.

    It is that of the difference between a long and a short run of the command, so that its start
    does not count.

    Args:
      run: the run folder.
      num_samples: texts side by side.
      num_bytes: of each text, by which the long run is longer.
    """
    return num_samples * num_bytes / _more_seconds(run, num_samples, num_bytes)


def _more_seconds(run: Path, num_samples: int, num_bytes: int) -> float:
    """Returns how long the command takes for so many bytes more."""
    seconds = []
    for count in (_FEW, _FEW + num_bytes):
        begin = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "charlstm", "sample", f"--checkpoint={run}", "--raw"),
                f"--prompt={PROMPT}",
                f"--num_samples={num_samples}",
                f"--num_bytes={count}",
                "--temperature=1",
            ],
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - begin)
    return seconds[1] - seconds[0]
