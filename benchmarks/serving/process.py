"""The real server as a process of its own, and what it says of itself."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

READY_SECONDS = 180.0


class Server:
    """A running server.

    Attributes:
      address: with a slash at its end.
      pid: of its process.
    """

    def __init__(self, process: subprocess.Popen[str], address: str):
        self._process, self.address, self.pid = process, address, process.pid

    def metrics(self) -> dict[str, float]:
        """Returns the metrics that have no label but the model's, by name."""
        with urllib.request.urlopen(f"{self.address}metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if set(sample.labels) <= {"model"}
        }

    def end(self) -> int:
        """Ends it with SIGTERM; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(READY_SECONDS)


@contextlib.contextmanager
def running(checkpoint: Path | str, *flags: str, log: Path) -> Iterator[Server]:
    """Serves a model while the context lasts.

    Args:
      checkpoint: the run, the checkpoint or the file.
      flags: of `charlstm serve`.
      log: takes its standard error.

    Raises:
      RuntimeError: it did not begin to serve.
    """
    command = [sys.executable, "-m", "charlstm", "serve", str(checkpoint), "--port=0", *flags]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # comes when all is compiled
        if not line.startswith("serving at "):
            raise RuntimeError(f"charlstm serve: {log.read_text()}")
        yield Server(process, line.removeprefix("serving at ").strip())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
