"""Reads run folders without jax, even while a run is still writing to them.

All files except `config.json` may be missing, truncated or from another version of charlstm; what
can be read is shown.
"""

import dataclasses
import json
import os
import re
import statistics
from pathlib import Path
from typing import Any

from charlstm.data.ngrams import NgramLevel
from charlstm.errors import UserError
from charlstm.storage import paths
from charlstm.storage.layout import PROFILE_FOLDER
from charlstm.training import metrics_file
from charlstm.training.metrics_file import is_figures, is_number

SAMPLE_NAME = re.compile(r"(\d+)\.txt")
LARGEST_SAMPLE = 4000  # bytes; the rest of a sample is not shown
ABOUT_FILE = "about.json"


class MetricsTail:
    """Follows a `metrics.jsonl` that grows, and reads each line once.

    A run that resumes from a checkpoint replaces the file; then all of it is read again.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file_id: tuple[int, int] | None = None
        self._offset = 0
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """Returns all complete lines so far, in order.

        Raises:
          UserError: it is no file that can be read.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                file_id = (status.st_dev, status.st_ino)
                if file_id != self._file_id or status.st_size < self._offset:
                    self._file_id, self._offset, self._lines = file_id, 0, []
                file.seek(self._offset)
                content = metrics_file.whole_lines(file.read())
        except FileNotFoundError:
            return self._lines  # not there yet
        except OSError as error:
            raise UserError(
                f"cannot read {self._path} ({error.strerror}): move it away, or name another run"
            ) from error
        self._offset += len(content)
        lines, damaged = metrics_file.split(content)
        self._lines += map(json.loads, lines)
        metrics_file.report_damage(self._path, damaged)
        return self._lines


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds what a run folder contains at one moment.

    Attributes:
      name: the name on the page, different for every run.
      folder: the run folder.
      config: the value of every field by its address.
      lines: the lines of `metrics.jsonl` with figures.
      diagnoses: the lines of `metrics.jsonl` with diagnoses.
      samples: update and bytes of each sample, in order.
      about: the contents of `about.json` on text and machine; empty for runs of older versions.
      profiles: files to open in Perfetto.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    diagnoses: list[dict[str, Any]]
    samples: list[tuple[int, bytes]]
    about: dict[str, Any]
    profiles: list[Path]

    @property
    def step(self) -> int:
        """Returns the last update with figures; 0 if there is none."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def num_updates(self) -> int:
        """Returns the number of updates that the run is to make."""
        return self.config.get("training.num_updates", self.step)

    @property
    def is_finished(self) -> bool:
        """Returns True if the last update is done."""
        return self.step >= self.num_updates

    @property
    def bytes_per_update(self) -> int:
        """Returns B·T, or 1 if the configuration does not have it."""
        window = self.config.get("data.window_length", 1)
        return self.config.get("data.num_streams", 1) * window

    def values(self, key: str) -> list[float]:
        """Returns the numbers under a key of the metrics, in order."""
        return [line[key] for line in self.lines if is_number(line.get(key))]

    def last(self, key: str) -> Any:
        """Returns the last value under a key of the metrics; None if no line has it."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)

    def best(self) -> dict[str, Any] | None:
        """Returns the line with the best validation; None before the first."""
        return min(self._validated(), key=lambda line: line["valid_bits_per_byte"], default=None)

    def last_validated(self) -> dict[str, Any] | None:
        """Returns the last line with a validation; None before the first."""
        return next(reversed(self._validated()), None)

    def _validated(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if is_number(line.get("valid_bits_per_byte"))]

    def rate(self) -> float | None:
        """Returns the median of the bytes per second; None without figures."""
        rates = self.values("bytes_per_second")
        return statistics.median(rates) if rates else None


def ngram_levels(run: Run) -> list[NgramLevel]:
    """Returns the n-gram levels of the run's validation split; empty if they are unknown."""
    try:
        levels = [NgramLevel(**fields) for fields in run.about.get("ngram_levels") or []]
    except TypeError:  # written by another version
        return []
    figures = [figure for level in levels for figure in dataclasses.astuple(level)]
    return levels if all(map(is_number, figures)) else []


class RunReader:
    """Reads a run folder repeatedly, its metrics only as far as they are new.

    Attributes:
      folder: of the run.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self._name = folder, name
        self._tail = MetricsTail(folder / metrics_file.FILE)

    def exists(self) -> bool:
        """Returns True if the run has begun."""
        config = self.folder / "config.json"
        if not config.is_file():
            paths.refresh(self.folder)
        return config.is_file()

    def read(self) -> Run:
        """Reads the current contents of the run folder.

        Raises:
          UserError: the folder is not a run folder.
        """
        paths.refresh(self.folder)
        config = self._config()
        lines = self._tail.lines()
        return Run(
            name=self._name,
            folder=self.folder,
            config=config,
            lines=[line for line in lines if is_figures(line)],
            diagnoses=[line for line in lines if not is_figures(line)],
            samples=self._samples(),
            about=self._about(),
            profiles=sorted(self.folder.glob(f"{PROFILE_FOLDER}/**/perfetto_trace.json.gz")),
        )

    def _config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            sections = json.loads(path.read_bytes())
            return {
                f"{section}.{name}": value
                for section, fields in sections.items()
                for name, value in fields.items()
            }
        except OSError as error:
            raise UserError(
                f"{self.folder} is no run folder ({path.name}: {error.strerror}): give the "
                "--workdir of a training run, such as runs/quickstart"
            ) from error
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}): name another run") from error

    def _about(self) -> dict[str, Any]:
        try:
            values = json.loads((self.folder / ABOUT_FILE).read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _samples(self) -> list[tuple[int, bytes]]:
        found = []
        for path in (self.folder / "samples").glob("*.txt"):
            named = SAMPLE_NAME.fullmatch(path.name)
            if named and path.is_file():
                with path.open("rb") as file:
                    found.append((int(named[1]), file.read(LARGEST_SAMPLE)))
        return sorted(found)


def readers(runs: list[str]) -> list[RunReader]:
    """Makes a reader for each run folder, with short names that tell the runs apart.

    Raises:
      UserError: one of them is a file, or named twice.
    """
    folders = [paths.local(run, refreshed=False) for run in runs]
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise UserError(
                f"{folder} is a file and no run folder: give the --workdir of a training run, such "
                "as runs/quickstart"
            )
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [paths.shown(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError("a run is named twice: name each run once")
    return [RunReader(folder, name) for folder, name in zip(folders, names, strict=True)]
