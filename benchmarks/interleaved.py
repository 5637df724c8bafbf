"""Measures competitors in interleaved runs (A B C A B C …), each in a long-lived process.

A run is a fixed number of units of work, chosen beforehand so that it takes about as long as was
asked for. Imports, compilation and the first runs, which find that number, are not measured.
Neither is the unit of work with which a competitor warms up at the beginning of each run.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from charlstm.benchmark.windows import count_for

ROOT = Path(__file__).parents[1]
START_LIMIT, RUN_LIMIT = 900.0, 300.0  # seconds

# Competitors share the GPU, so they take its memory only as needed. TensorFlow logs errors only.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """Describes a competitor and how to start it.

    Attributes:
      name: its name in tables.
      module: its importable name; one that begins with a dot is below `benchmarks.competitors`.
      spec: what its `prepare` takes; JSON values.
      python: the interpreter to run it with.
      environment: variables to set for it.
      count: units of work in a run; 0 chooses the number by the time that they take.
      warm_up: units of work before those, which are not measured.
    """

    name: str
    module: str
    spec: dict[str, Any]
    python: str = sys.executable
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    count: int = 0
    warm_up: int = 1


@dataclasses.dataclass
class Outcome:
    """Holds what was measured of a competitor.

    Attributes:
      entry: the competitor.
      status: `ok`, `not installed (NAME)` or `failed: …`.
      info: what it reports about itself.
      count: units of work in a run.
      seconds: the time of each run.
      values: figures of its own from each run.
      idle_cpu_share: the share of one core that it used while others were measured.
      peak_rss_bytes: the most memory that its process held.
    """

    entry: Entry
    status: str = "ok"
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    count: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    values: list[dict[str, float]] = dataclasses.field(default_factory=list)
    idle_cpu_share: float = 0.0
    peak_rss_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Returns True if it made all its runs."""
        return self.status == "ok"

    @property
    def unit_seconds(self) -> list[float]:
        """Returns the seconds of one unit of work, in each run."""
        return [seconds / self.count for seconds in self.seconds]

    def rate(self, units: float = 1.0) -> float:
        """Returns the median rate, where one unit of work counts as `units`."""
        return units / statistics.median(self.unit_seconds)

    def rates(self, units: float = 1.0) -> tuple[float, float]:
        """Returns the lowest and the highest rate of any run."""
        return units / max(self.unit_seconds), units / min(self.unit_seconds)

    def value(self, name: str) -> float:
        """Returns the median of one of its own figures."""
        return statistics.median(values[name] for values in self.values)


def run_interleaved(
    entries: Sequence[Entry],
    rounds: int,
    run_seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:
    """Starts all competitors, then measures one run of each in every round.

    The outcome of one that cannot start, or that fails, has the reason as its status.

    Args:
      entries: the competitors, in the order of their runs.
      rounds: how many runs of each are measured.
      run_seconds: about how long a run should take.
      say: called with messages about the progress.
    """
    outcomes = [Outcome(entry) for entry in entries]
    with contextlib.ExitStack() as stack:
        children: dict[int, Child] = {}
        for number, outcome in enumerate(outcomes):
            say(f"starting {outcome.entry.name}")
            with reasons(outcome):
                child = stack.enter_context(start(outcome.entry))
                child.prepare(outcome.entry)
                outcome.info = child.read(START_LIMIT)["info"]
                chosen = outcome.entry.count
                outcome.count = chosen or count_for(child.seconds_of(), run_seconds)
                if chosen:
                    child.run(chosen)
                children[number] = child
        idle: dict[int, list[tuple[float, float]]] = {number: [] for number in children}
        for round_number in range(rounds):
            say(f"round {round_number + 1} of {rounds}")
            for number in list(children):
                outcome = outcomes[number]
                with reasons(outcome):
                    reply = children[number].run(outcome.count, outcome.entry.warm_up)
                    outcome.seconds.append(reply["seconds"])
                    outcome.values.append(reply["values"])
                    outcome.peak_rss_bytes = reply["peak_rss_bytes"]
                    idle[number].append((reply["idle_cpu_seconds"], reply["idle_seconds"]))
                if not outcome.ok:
                    del children[number]
        for number in children:
            cpu, wall = (sum(column) for column in zip(*idle[number], strict=True))
            outcomes[number].idle_cpu_share = cpu / max(wall, 1e-9)
    for outcome in outcomes:
        if not outcome.ok:
            say(f"{outcome.entry.name}: {outcome.status}")
    return outcomes


class Refusal(Exception):
    """Reports why a competitor cannot be measured."""


@contextlib.contextmanager
def reasons(outcome: Outcome) -> Iterator[None]:
    """Makes what a competitor refuses inside this context its outcome's status."""
    try:
        yield
    except Refusal as reason:
        outcome.status = str(reason)


class Child:
    """Talks to a process of competitors from the parent's side.

    A `name` tells competitors that share the process apart; one alone has none.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path):
        self._process, self._log = process, log
        self._rest = b""

    @property
    def has_ended(self) -> bool:
        """Returns True if the process is no more."""
        return self._process.poll() is not None

    def prepare(self, entry: Entry, name: str = "") -> None:
        """Asks it to prepare a competitor; the next reply has its `info`."""
        self.send({"module": entry.module, "spec": entry.spec, "name": name})

    def send(self, message: dict[str, Any]) -> None:
        """Asks it for something without waiting for the reply."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the next read reports why

    def run(self, count: int, warm_up: int = 0, name: str = "") -> dict[str, Any]:
        """Makes it do `count` units of work, after `warm_up` units that are not measured."""
        self.send({"count": count, "warm_up": warm_up, "name": name})
        return self.read(RUN_LIMIT)

    def seconds_of(self, name: str = "") -> Callable[[int], float]:
        """Returns a function that runs units of work and returns the seconds that they took."""
        return lambda count: float(self.run(count, name=name)["seconds"])

    def read(self, limit: float) -> dict[str, Any]:
        """Returns its next reply; raises `Refusal` if it failed or does not answer in time."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(deadline - time.monotonic()):
                    self._process.kill()
                    raise Refusal(f"failed: no answer in {limit:.0f} s")
                piece = os.read(descriptor, 2**16)
                if not piece:
                    lines = self._log.read_text(errors="replace").split("\n")
                    last = next((line for line in reversed(lines) if line.strip()), "no message")
                    code = self._process.wait()
                    raise Refusal(f"failed: its process ended with code {code}: {last[:200]}")
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "missing" in reply:
            raise Refusal(f"not installed ({reply['missing']})")
        if "error" in reply:
            raise Refusal(f"failed: {reply['error']}")
        return reply


@contextlib.contextmanager
def start(entry: Entry) -> Iterator[Child]:
    """Starts a process for competitors with the interpreter and the environment of one."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = os.environ | ENVIRONMENT | entry.environment
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        )
        with log.open("wb") as errors:
            try:
                process = subprocess.Popen(
                    [entry.python, "-m", "benchmarks.child"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=ROOT,
                    env=environment,
                )
            except FileNotFoundError:
                raise Refusal(f"not installed ({entry.python})") from None
        child = Child(process, log)
        try:
            yield child
        finally:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
