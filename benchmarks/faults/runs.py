"""The runs of the campaign, as real processes."""

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.ends import NUM_UPDATES, Expected, NotSurvivedError, require

EVALUATE_EVERY = 8
SECONDS_TO_END = 300  # after which a process is said to hang

# A line for each update, so that the lines do not depend on where a run was interrupted.
CONFIGURATION = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.dropout=0.2",
    "--config.model.alphabet=corpus",
    "--config.data.num_streams=4",
    "--config.data.window_length=8",
    "--config.data.valid_size=0.3",
    "--config.optimizer.warmup_updates=5",
    # With so high a rate the best validation is one in the middle.
    "--config.optimizer.learning_rate=0.35",
    "--config.optimizer.schedule=constant",
    f"--config.training.num_updates={NUM_UPDATES}",
    "--config.training.log_every=1",
    f"--config.training.evaluate_every={EVALUATE_EVERY}",
    "--config.training.sample_every=16",
)


class Process:
    """A `python -m charlstm …` that is under way; what it says goes to a file.

    Attributes:
      pid: its number.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], output: Path):
        self._output = output
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        self.pid = self._popen.pid

    @property
    def said(self) -> str:
        """Returns what it has written so far."""
        return self._output.read_text(errors="replace")

    @property
    def is_alive(self) -> bool:
        """Returns True while it has not ended."""
        return self._popen.poll() is None

    def listens(self) -> bool:
        """Returns True once charlstm, and no longer Python alone, is told of its signals."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                name, _, mask = line.partition(":")
                if name in ("SigBlk", "SigCgt") and int(mask, 16) >> (signal.SIGTERM - 1) & 1:
                    return True
        return False

    def wait_until(self, condition: Callable[[], Any], seconds: float = SECONDS_TO_END) -> bool:
        """Returns True when a condition holds; False if the process ended before."""
        until = time.monotonic() + seconds
        while self.is_alive and time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def send(self, number: int) -> None:
        """Sends a signal."""
        self._popen.send_signal(number)

    def end(self, seconds: float = SECONDS_TO_END) -> int:
        """Returns its exit code when it has ended.

        Raises:
          NotSurvivedError: it does not end.
        """
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise NotSurvivedError(f"an end within {seconds:.0f} s", self.said[-3000:]) from error

    def kill(self) -> None:
        """Makes sure that it has ended."""
        if self.is_alive:
            self._popen.kill()
            self._popen.wait()


class Bench:
    """Holds what all trials share: a text, a cache of compiled programs, and undisturbed runs.

    Args:
      folder: for all of it, kept when the campaign is over. What an earlier campaign left there is
        used again.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.text = self.folder / "text.txt"
        self._write_text()
        self.environment = os.environ | {
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
            # What XLA spends on making code fast is more than such a run takes.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }

    def _write_text(self) -> None:
        rng = random.Random("text")
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(rng.choices(letters, k=5)) for _ in range(40)]
        self.text.write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(250)))

    @functools.cache  # noqa: B019 - one of it lives as long as the campaign
    def _expected(self, processes: int) -> Expected:
        folder = self.folder / f"undisturbed{processes}"
        keep_all = "--config.training.checkpoint_every=1", "--config.training.keep_every=1"
        begin = time.monotonic()
        with self.training(folder, *keep_all, processes=processes) as running:
            codes = [process.end() for process in running]
            said = running[0].said
        require(codes == [0] * processes, "an undisturbed run that ends with 0", f"{codes}: {said}")
        return Expected(folder, time.monotonic() - begin)

    def expected(self, processes: int = 1) -> Expected:
        """Returns the undisturbed run of so many processes; makes it if it is not there."""
        return self._expected(processes)  # one key, however the argument was given

    def command(self, name: str, *arguments: str) -> list[str]:
        """Returns the command line of a command of charlstm."""
        return [sys.executable, "-m", "charlstm", name, *arguments]

    def train_command(self, folder: Path, *flags: str) -> list[str]:
        """Returns the command line of a run in a folder."""
        fixed = f"--corpus={self.text}", f"--workdir={folder}", "--num_cpu_devices=1"
        return self.command("train", *fixed, *CONFIGURATION, *flags)

    @contextlib.contextmanager
    def training(
        self, folder: Path, *flags: str, processes: int = 1, prefix: Sequence[str] = ()
    ) -> Iterator[list[Process]]:
        """Starts a run of one process or more; they have ended when the context is left."""
        command = [*prefix, *self.train_command(folder, *flags)]
        port = _free_port()
        running: list[Process] = []
        try:
            for number in range(processes):
                place = {
                    "NUM_PROCESSES": str(processes),
                    "PROCESS_ID": str(number),
                    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                    "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
                }
                environment = self.environment | (place if processes > 1 else {})
                output = folder.with_name(f"{folder.name}.said{number}")
                running.append(Process(command, environment, output))
            yield running
        finally:
            for process in running:
                process.kill()

    def finish(self, folder: Path, *flags: str, processes: int = 1) -> str:
        """Runs the same command again, to its end; returns what it said."""
        with self.training(folder, *flags, processes=processes) as running:
            codes = [process.end() for process in running]
            said = running[0].said
        require(
            codes == [0] * processes, "the same command ends with 0", f"{codes}: {said[-3000:]}"
        )
        require("Traceback" not in said, "no traceback", said[-3000:])
        return said

    def call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        try:
            return subprocess.run(
                command,
                env=self.environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS_TO_END,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotSurvivedError(f"an end within {SECONDS_TO_END} s", str(error)) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
