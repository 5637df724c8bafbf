"""The trials of a campaign: which kinds there are, in which order, and what became of them."""

import dataclasses
import hashlib
import itertools
import random
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.faults import damages, disk, group, kills, neighbours
from benchmarks.faults.ends import NotSurvivedError
from benchmarks.faults.runs import Bench

# A trial disturbs a run in a folder that is not there yet, and returns the number of faults. What
# it draws, it draws from a generator of its own.
KINDS: dict[str, Callable[[Bench, random.Random, Path], int]] = {
    "kill": kills.killed,
    "signal": kills.signalled,
    "process": group.one_of_two,
    "disk": disk.full,
    "damage": damages.damaged_file,
    "damaged_run": damages.damaged_run,
    "second_run": neighbours.second_run,
    "readers": neighbours.readers,
}
MEANINGS = {
    "kill": "SIGKILL, at random moments and during starts, saves, deletions, validations",
    "signal": "SIGTERM, SIGUSR1 or SIGINT",
    "process": "one of two processes killed, stopped or paused",
    "disk": "a full disk",
    "damage": "a damaged file, all models read in one process",
    "damaged_run": "a damaged file, the run resumed or read by a command",
    "second_run": "a second run in the folder of the first",
    "readers": "readers of a run that saves and deletes at every update",
}
# Damages are tried by the dozen: they need no process of their own.
_ROUND = [kind for kind in KINDS for _ in range(12 if kind == "damage" else 1)]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One disturbed run, named by its kind and its seed: `kill:123`."""

    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.seed}"

    @classmethod
    def of(cls, kind: str, campaign: int, number: int) -> "Trial":
        """Returns the trial of a kind with a number, in the campaign with a seed."""
        digest = hashlib.sha256(f"{campaign} {kind} {number}".encode()).digest()
        return cls(kind, int.from_bytes(digest[:4], "little"))


@dataclasses.dataclass
class Tally:
    """Counts the trials of a kind, and names those that failed."""

    tried: int = 0
    faults: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)

    @property
    def survived(self) -> int:
        """Returns the number of trials that ended as promised."""
        return self.tried - len(self.failed)


class Campaign:
    """Makes trials, and counts.

    Args:
      bench: what they share.
      say: prints a line.

    Attributes:
      tallies: by kind.
    """

    def __init__(self, bench: Bench, say: Callable[[str], None]):
        self._bench, self._say = bench, say
        self._longest: dict[str, float] = {}
        self.tallies: dict[str, Tally] = {}

    @property
    def failed(self) -> list[str]:
        """Returns the names of the trials that failed."""
        return [name for tally in self.tallies.values() for name in tally.failed]

    def run_for(self, seconds: float, kinds: Sequence[str], seed: int) -> None:
        """Makes trials of some kinds in turn; none is begun for which there may be no time."""
        until = time.monotonic() + seconds
        # The longest so far; at first a guess.
        guess = 2 * self._bench.expected().seconds
        self._longest = {kind: 1 if kind == "damage" else guess for kind in kinds}
        order = [kind for kind in _ROUND if kind in kinds]
        random.Random(seed).shuffle(order)
        numbers = {kind: itertools.count() for kind in kinds}
        for kind in itertools.cycle(order):
            left = until - time.monotonic()
            if left < min(self._longest.values()):
                return
            if left >= self._longest[kind]:
                self.run(Trial.of(kind, seed, next(numbers[kind])))

    def run_amounts(self, amounts: Mapping[str, int], seed: int, jobs: int = 1) -> None:
        """Makes trials until there were so many faults of each kind, of `jobs` kinds at a time."""

        def run_kind(kind: str) -> None:
            for number in itertools.count():
                if self.tallies.get(kind, Tally()).faults >= amounts[kind]:
                    return
                self.run(Trial.of(kind, seed, number))

        for processes in (1, 2) if "process" in amounts else (1,):
            self._bench.expected(processes)  # which all kinds share
        with ThreadPoolExecutor(jobs) as threads:
            list(threads.map(run_kind, amounts))

    def run(self, trial: Trial) -> None:
        """Makes one trial; its folder is kept if it fails."""
        folder = self._bench.folder / "trials" / f"{trial.kind}-{trial.seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tally = self.tallies.setdefault(trial.kind, Tally())
        begin = time.monotonic()
        try:
            rng = random.Random(trial.seed)
            tally.faults += KINDS[trial.kind](self._bench, rng, folder / "run")
            shutil.rmtree(folder)
        except NotSurvivedError as error:
            self._fail(tally, trial, folder, error.expected, error.found)
        except Exception:
            self._fail(tally, trial, folder, "no other exception", traceback.format_exc())
        tally.tried += 1
        seconds = time.monotonic() - begin
        self._longest[trial.kind] = max(seconds, self._longest.get(trial.kind, 0))

    def _fail(self, tally: Tally, trial: Trial, folder: Path, expected: str, found: str) -> None:
        tally.failed.append(str(trial))
        tally.faults += 1
        self._say(
            f"FAILED {trial} ({MEANINGS[trial.kind]})\n  expected: {expected}\n  found: {found}\n"
            f"  kept: {folder}\n  again: --only={trial}"
        )
