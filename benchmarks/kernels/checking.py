"""Runs checks on a GPU one after another, each in a process with a limited time.

A persistent kernel with a fault may wait for ever. A process that does not end in time is killed,
and the next check goes on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from benchmarks import comparison
from benchmarks.interleaved import ENVIRONMENT, ROOT
from charlstm.errors import UserError

SECONDS = flags.DEFINE_float("seconds", 60.0, "For all checks together.", 1.0)
BUILD = flags.DEFINE_string("build", None, "Folder for what is built; by default a temporary one.")

LEAST_SECONDS = 3.0  # no check begins with less
LAYER_LIMIT = 35.0  # of seconds for a layer in JAX, most of them for compiling


class Checks:
    """Runs commands until a deadline.

    Args:
      seconds: until the deadline.
    """

    def __init__(self, seconds: float):
        self._deadline = time.monotonic() + seconds
        self._failed: list[str] = []

    def run(self, name: str, command: Sequence[str | Path], limit: float) -> bool:
        """Runs a command in the repository's root; its output goes where this process's does.

        Args:
          name: in the lines about it.
          command: a program and its arguments.
          limit: seconds after which it is killed with all that it has started.

        Returns:
          True if its exit code was 0.
        """
        left = self._deadline - time.monotonic()
        if left < LEAST_SECONDS:
            return self._end(name, f"not begun: {max(0.0, left):.0f} s left")
        begin = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(min(limit, left))
        except subprocess.TimeoutExpired:
            return self._end(name, f"killed after {min(limit, left):.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # the driver may hold it
                process.wait(LEAST_SECONDS)
        if code != 0:
            return self._end(name, f"exit code {code}")
        print(f"== {name}: ok after {time.monotonic() - begin:.1f} s", flush=True)
        return True

    def layer(self, kernel: str, sizes: str, clusters: Sequence[int], build: Path) -> bool:
        """Checks and measures a kernel's layer in JAX.

        Args:
          kernel, sizes, clusters: flags of `layer_check`.
          build: the folder of what is built.

        Returns:
          True if it is right.
        """
        which = (
            f"--kernel={kernel}",
            f"--sizes={sizes}",
            f"--clusters={','.join(map(str, clusters))}",
        )
        command = (sys.executable, "-m", "benchmarks.kernels.layer_check", *which)
        return self.run(" ".join(which), (*command, f"--build={build}"), LAYER_LIMIT)

    def end(self) -> None:
        """Lists what was not right; exits with 1 if there is something, else with 0."""
        for line in self._failed:
            print(f"-- {line}")
        sys.exit(bool(self._failed))

    def _end(self, name: str, reason: str) -> bool:
        self._failed.append(f"{name}: {reason}")
        print(f"== {name}: {reason}", flush=True)
        return False


@contextlib.contextmanager
def build_folder() -> Iterator[Path]:
    """Returns the folder of `--build`, or a temporary one."""
    if BUILD.value:
        yield Path(BUILD.value).absolute()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turns a `UserError` into its line and exit code 2."""
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def on_a_gpu() -> Iterator[Path]:
    """Returns the folder for builds; ends with one line and exit code 2 where there is no GPU."""
    with one_line():
        if not comparison.has_gpu():
            raise UserError(
                "the kernels are checked on an H100 or H200, and there is no NVIDIA GPU here"
            )
        with build_folder() as folder:
            yield folder
