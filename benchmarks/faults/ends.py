"""Compares the end of a disturbed run with that of an undisturbed one."""

import dataclasses
import functools
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import charlstm
from charlstm.checkpoint.metadata import METRIC, read_metadata
from charlstm.checkpoint.reading import FOLDER, saved_steps
from charlstm.training.metrics_file import SAMPLES_FOLDER, read_figures

NUM_UPDATES = 40
_TIMES = {"seconds", "bytes_per_second", "goodput", "lost_seconds"}  # differ from run to run


class NotSurvivedError(Exception):
    """Reports that a run, or a reader, did not end as promised.

    Attributes:
      expected, found: in words.
    """

    def __init__(self, expected: str, found: str):
        self.expected, self.found = expected, found
        super().__init__(f"expected {expected}; found {found}")


def require(holds: bool, expected: str, found: Any) -> None:
    """Raises `NotSurvivedError` if something does not hold."""
    if not holds:
        raise NotSurvivedError(expected, str(found))


def require_one_line(code: int, said: str, *words: str) -> None:
    """Makes sure that a command ended with exit code 2 and one line that has these words."""
    lines = [line for line in said.splitlines() if line.startswith("charlstm: ")]
    is_one = code == 2 and len(lines) == 1 and "Traceback" not in said
    expected = f"exit code 2 and one line with {', '.join(words)}"
    require(is_one and all(word in lines[0] for word in words), expected, f"{code}: {said[-3000:]}")


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Sets how often a run saves and what it keeps; what is computed does not depend on it."""

    checkpoint_every: int
    keep_last: int
    keep_every: int

    @classmethod
    def draw(cls, rng: random.Random) -> "Keeping":
        """Returns one of several."""
        return cls(rng.choice((1, 3, 6)), rng.choice((1, 2)), rng.choice((0, 12)))

    @property
    def flags(self) -> list[str]:
        """Returns the flags that ask for it."""
        values = dataclasses.asdict(self)
        return [f"--config.training.{name}={value}" for name, value in values.items()]


@dataclasses.dataclass(frozen=True)
class Expected:
    """An undisturbed run that has kept the checkpoint of every update.

    Attributes:
      folder: of the run.
      seconds: how long it took.
    """

    folder: Path
    seconds: float

    @functools.cached_property
    def lines(self) -> dict[int, dict[str, Any]]:
        """Returns the figures of every update that do not depend on time."""
        return {line["step"]: line for line in figures(self.folder)}

    @functools.cached_property
    def best(self) -> int:
        """Returns the update with the best validation."""
        return self.best_of(self.lines)

    def best_of(self, steps: Iterable[int]) -> int:
        """Returns the one of some updates that has the best validation."""
        return min(steps, key=lambda step: (self.lines[step].get(METRIC, math.inf), -step))

    @functools.cached_property
    def samples(self) -> dict[str, bytes]:
        """Returns the samples by the names of their files."""
        return _samples(self.folder)

    @functools.cache  # noqa: B019 - one of it lives as long as the campaign
    def parameters(self, step: int) -> np.ndarray:
        """Returns all numbers of the model after so many updates."""
        return numbers(charlstm.load(checkpoint(self.folder, step)))

    def require_same_model(self, model: charlstm.Model, step: int) -> None:
        """Makes sure that a model is bit for bit the one after so many updates."""
        found, wanted = numbers(model), self.parameters(step)
        is_same = found.tobytes() == wanted.tobytes()
        require(is_same, f"the parameters of update {step}, bit for bit", "others")

    def require_same_end(
        self,
        folder: Path,
        *,
        keeping: Keeping,
        all_samples: bool = True,
        lines_after: int = 0,
        is_best_whole: bool = True,
    ) -> None:
        """Makes sure that a disturbed run has ended as this one.

        Args:
          folder: of the run.
          keeping: what it was to keep.
          all_samples: whether each sample must be there, and not only right if it is.
          lines_after: the update after which its lines of metrics are compared.
          is_best_whole: whether the best checkpoint is as it was written.
        """
        compared = {NUM_UPDATES, self.best} if is_best_whole else {NUM_UPDATES}
        kept = [int(step.name) for step in saved_steps(folder / FOLDER)]
        needed = set(compared)
        if keeping.keep_every:
            needed |= set(range(keeping.keep_every, NUM_UPDATES + 1, keeping.keep_every))
        require(needed <= {*kept}, f"checkpoints {sorted(needed)}, perhaps others", kept)
        most = len(needed) + keeping.keep_last - is_best_whole
        require(len(kept) <= most, "old checkpoints deleted", kept)
        left = [entry.name for entry in (folder / FOLDER).iterdir() if entry.name.startswith(".")]
        require(not left, "nothing half written", left)
        for step in compared:
            self.require_same_model(charlstm.load(checkpoint(folder, step)), step)
            score = read_metadata(checkpoint(folder, step)).metrics[METRIC]
            require(score == self.lines[step][METRIC], f"the validation of update {step}", score)
        wanted = [line for step, line in self.lines.items() if step > lines_after]
        found = [line for line in figures(folder) if line["step"] > lines_after]
        differing = [line for line in found if line not in wanted]
        details = f"{len(found)} lines, of which differ {differing}"
        require(found == wanted, f"{len(wanted)} lines of metrics, one for an update", details)
        samples = _samples(folder)
        is_complete = not all_samples or samples.keys() == self.samples.keys()
        is_right = all(self.samples.get(name) == text for name, text in samples.items())
        require(is_complete and is_right, f"the samples {sorted(self.samples)}", sorted(samples))


def figures(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics without what depends on time."""
    lines = read_figures(folder)
    return [{key: line[key] for key in line.keys() - _TIMES} for line in lines]


def checkpoint(folder: Path, step: int) -> Path:
    """Returns the folder of a checkpoint of a run."""
    return folder / FOLDER / str(step)


def numbers(model: charlstm.Model) -> np.ndarray:
    """Returns all numbers of a model in one array."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(model.params)])


def _samples(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / SAMPLES_FOLDER).glob("*.txt")}
