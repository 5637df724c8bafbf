"""`metrics.jsonl` and `samples/` of a run folder."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charlstm.runtime.files import replace_file

FILE = "metrics.jsonl"


def is_figures(line: Mapping[str, Any]) -> bool:
    """Returns True if a line of the file holds figures, and no diagnosis."""
    return "diagnosis" not in line


def read_figures(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's `metrics.jsonl` that hold figures; none without such a file."""
    found = []
    try:
        text = (run / FILE).read_text()
    except OSError:
        return []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # of a line that is being written
            found.append(json.loads(line))
    return [line for line in found if is_figures(line)]


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line in the order of the updates, and `samples/`.

    Args:
      run: the run folder.
      step: the update that the run resumes from. Lines of later updates, left by a process
        that was ended before it could save, are dropped: those updates are made again.
    """

    def __init__(self, run: Path, step: int):
        self._path = run / FILE
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= step and step > 0:
                        kept.append(line + "\n")
                except ValueError:  # the line that was being written
                    pass
        replace_file(self._path, "".join(kept))
        self._file = self._path.open("a")

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends a line; it is in the file when this returns."""
        self._file.write(json.dumps(dict(values), allow_nan=False) + "\n")
        self._file.flush()

    def sample(self, step: int, drawn: bytes) -> None:
        """Keeps a text that the model made: `samples/STEP.txt`."""
        folder = self._path.parent / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"{step:08d}.txt").write_bytes(drawn)

    def merge(self, values: Mapping[str, Any]) -> None:
        """Adds figures to the line of metrics of the last update that has one.

        What a diagnosis or a user's hook said of that update stands in lines behind it.
        """
        self._file.close()
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        if not any(is_figures(line) for line in lines):
            lines.append({})
        figures = [line for line in lines if is_figures(line)]
        last = next(line for line in figures if line.get("step") == figures[-1].get("step"))
        last |= values
        text = [json.dumps(line, allow_nan=False) for line in lines]
        replace_file(self._path, "\n".join(text) + "\n")
        self._file = self._path.open("a")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
