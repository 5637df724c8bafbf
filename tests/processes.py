"""Starts several charlstm processes that train together, for tests."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# What XLA spends on making code fast is more than such a run takes.
CHEAP = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

LOCAL = Path(__file__).parent.parent / "launch" / "local.py"

# A configuration small enough that a process costs little more than its imports.
SMALL = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.dropout=0.3",
    "--config.data.num_streams=8",
    "--config.data.window_length=8",
    "--config.training.num_updates=50",
    "--config.training.log_every=1",
    "--config.training.evaluate_every=0",
    "--config.training.sample_every=0",
    "--config.training.checkpoint_every=0",
    "--config.optimizer.warmup_updates=5",
)


def free_port():
    """A port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_together(commands, environments, seconds=300):
    """Runs several processes at once; returns the exit code, output and errors of each."""
    started = [
        subprocess.Popen(
            list(map(str, command)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


class Group:
    """Processes of one run, started as any launcher would, by their environment alone."""

    def __init__(self, count, arguments, environment, folder):
        port = free_port()
        self.outputs = [folder / f"output{process}" for process in range(count)]
        self.processes = []
        for process, output in enumerate(self.outputs):
            place = {
                "NUM_PROCESSES": str(count),
                "PROCESS_ID": str(process),
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
            }
            with output.open("wb") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "charlstm", "train", *map(str, arguments)],
                        env=environment | place | CHEAP,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def text(self):
        """What all have written so far."""
        return "\n".join(f"[{path.name}] {path.read_text()}" for path in self.outputs)

    def signal(self, number, process=0):
        self.processes[process].send_signal(number)

    def wait(self, seconds=240):
        """Their exit codes."""
        until = time.monotonic() + seconds
        try:
            return [p.wait(max(0.1, until - time.monotonic())) for p in self.processes]
        finally:
            self.kill()

    def wait_until(self, done, seconds=120):
        """Waits for a condition while all are alive."""
        until = time.monotonic() + seconds
        while not done():
            ended = [process.poll() for process in self.processes]
            assert time.monotonic() < until and ended == [None] * len(ended), self.text()
            time.sleep(0.02)

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
