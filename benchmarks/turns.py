"""Contestants take turns (A B C A B C …), each in a long-lived process of its own.

A turn is a fixed number of units of work, chosen beforehand so that it takes about as long as
was asked for. Imports, compilation and those first turns are not part of what is measured, nor is
the unit of work with which a contestant finds its pace again at the beginning of each turn.
"""

import contextlib
import dataclasses
import json
import math
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

ROOT = Path(__file__).parents[1]
START_LIMIT, TURN_LIMIT = 900.0, 300.0  # seconds

# GPU memory is taken as it is needed, for the contestants share it; libraries keep quiet.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant as it is sent for.

    Attributes:
      name: in tables.
      module: its importable name; one that begins with a dot is below `benchmarks.contestants`.
      spec: what its `prepare` takes; JSON values.
      python: the interpreter to run it with.
      environment: variables to set for it.
      count: units of a turn; 0 chooses them by the time they take.
      warm_up: units before those, which are not measured.
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
    """How a contestant did.

    Attributes:
      entry: the contestant.
      status: `ok`, `not installed (NAME)` or `failed: …`.
      info: what it says of itself.
      count: units of work in a turn.
      seconds: of each turn.
      values: figures of its own from each turn.
      idle_cpu_share: of one core, used while others had their turns.
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
        """Whether it took all its turns."""
        return self.status == "ok"

    @property
    def unit_seconds(self) -> list[float]:
        """Seconds of a unit of work, in each turn."""
        return [seconds / self.count for seconds in self.seconds]

    def rate(self, units: float = 1.0) -> float:
        """The median rate, where one unit of work is worth `units`."""
        return units / statistics.median(self.unit_seconds)

    def rates(self, units: float = 1.0) -> tuple[float, float]:
        """The lowest and the highest rate of any turn."""
        return units / max(self.unit_seconds), units / min(self.unit_seconds)

    def value(self, name: str) -> float:
        """The median of one of its own figures."""
        return statistics.median(values[name] for values in self.values)


def take_turns(
    entries: Sequence[Entry],
    rounds: int,
    turn_seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> list[Outcome]:
    """Starts all, then lets them take turns; those that cannot are kept with their reason.

    Args:
      entries: in the order of their turns.
      rounds: turns of each.
      turn_seconds: about how long a turn is to be.
      say: told what is going on.
    """
    outcomes = [Outcome(entry) for entry in entries]
    with contextlib.ExitStack() as stack:
        children: dict[int, _Child] = {}
        for number, outcome in enumerate(outcomes):
            say(f"starting {outcome.entry.name}")
            with _reasons(outcome):
                child = stack.enter_context(_start(outcome.entry))
                outcome.info = child.read(START_LIMIT)["info"]
                chosen = outcome.entry.count
                outcome.count = chosen or _count_for(child, turn_seconds)
                if chosen:
                    child.turn(chosen)
                children[number] = child
        idle: dict[int, list[tuple[float, float]]] = {number: [] for number in children}
        for round_number in range(rounds):
            say(f"round {round_number + 1} of {rounds}")
            for number in list(children):
                outcome = outcomes[number]
                with _reasons(outcome):
                    reply = children[number].turn(outcome.count, outcome.entry.warm_up)
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


class _Refusal(Exception):
    """Why a contestant takes no turn."""


@contextlib.contextmanager
def _reasons(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except _Refusal as reason:
        outcome.status = str(reason)


def _count_for(child: "_Child", turn_seconds: float) -> int:
    """Units of work that take about `turn_seconds`."""
    child.turn(1)
    count, seconds = 1, child.turn(1)["seconds"]
    while seconds < turn_seconds / 4:
        count = min(8 * count, math.ceil(count * turn_seconds / max(seconds, 1e-6)))
        seconds = child.turn(count)["seconds"]
    return max(1, math.ceil(count * turn_seconds / seconds))


class _Child:
    """The parent's end of a contestant's process."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path):
        self._process, self._log = process, log
        self._rest = b""

    def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the read that follows says why

    def turn(self, count: int, warm_up: int = 0) -> dict[str, Any]:
        """Lets it do `count` units of work, after some that are not measured."""
        self.send({"count": count, "warm_up": warm_up})
        return self.read(TURN_LIMIT)

    def read(self, limit: float) -> dict[str, Any]:
        """Its next reply; raises `_Refusal` if it is none of work done."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(deadline - time.monotonic()):
                    self._process.kill()
                    raise _Refusal(f"failed: no answer in {limit:.0f} s")
                piece = os.read(descriptor, 2**16)
                if not piece:
                    lines = self._log.read_text(errors="replace").split("\n")
                    last = next((line for line in reversed(lines) if line.strip()), "no message")
                    code = self._process.wait()
                    raise _Refusal(f"failed: its process ended with code {code}: {last[:200]}")
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "missing" in reply:
            raise _Refusal(f"not installed ({reply['missing']})")
        if "error" in reply:
            raise _Refusal(f"failed: {reply['error']}")
        return reply


@contextlib.contextmanager
def _start(entry: Entry) -> Iterator[_Child]:
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
                raise _Refusal(f"not installed ({entry.python})") from None
        child = _Child(process, log)
        try:
            child.send({"module": entry.module, "spec": entry.spec})
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
