"""`metrics.jsonl` and `samples/` of a run folder.

A line of `metrics.jsonl` is a JSON object with the update that it speaks of, `step`. Whoever reads
the file passes over all other lines, and says so.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from charlstm.errors import UserError
from charlstm.runtime.files import replace_file

FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.jsonl.damaged"  # what the file held beside its lines
SAMPLES_FOLDER = "samples"


def is_figures(line: Mapping[str, Any]) -> bool:
    """Returns True if a line of the file holds figures, and no diagnosis."""
    return "diagnosis" not in line


def is_number(value: Any) -> bool:
    """Returns True if a JSON value is a finite number."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= sys.float_info.max


def plain(value: Any) -> Any:
    """Returns a figure, or several, as JSON has them; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy or JAX
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse(line: bytes) -> dict[str, Any] | None:
    """Returns the object in a line of the file; None if the line is not one of the file's own."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return values if type(step) is int and 0 <= step < 2**63 else None


def split(content: bytes) -> tuple[list[bytes], list[bytes]]:
    """Returns the file's own lines in what it holds, and all others but empty ones."""
    own: list[bytes] = []
    others: list[bytes] = []
    for line in filter(bytes.strip, content.split(b"\n")):
        (others if parse(line) is None else own).append(line)
    return own, others


def whole_lines(content: bytes) -> bytes:
    """Returns the content without a last line that is still being written."""
    return content[: content.rfind(b"\n") + 1]


def report_damage(path: Path, damaged: list[bytes], more: str = "") -> None:
    """Logs how many lines were passed over, if any."""
    if damaged:
        logging.warning("%s has %d line(s) that are no figures%s", path, len(damaged), more)


def read_figures(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's `metrics.jsonl` that hold figures; none without such a file."""
    path = run / FILE
    try:
        lines, damaged = split(whole_lines(path.read_bytes()))
    except OSError:
        return []
    report_damage(path, damaged)
    return [line for line in map(json.loads, lines) if is_figures(line)]


class MetricsFile:
    """`metrics.jsonl`, one JSON object a line in the order of the updates, and `samples/`.

    Args:
      run: the run folder.
      step: the update that the run resumes from. Lines of later updates, left by a process
        that was ended before it could save, are dropped: those updates are made again.
    """

    def __init__(self, run: Path, step: int):
        self._path = run / FILE
        lines, damaged = split(self._path.read_bytes() if self._path.exists() else b"")
        if damaged:
            aside = run / DAMAGED_FILE
            with aside.open("ab") as file:
                file.write(_joined(damaged))
                file.flush()
                os.fsync(file.fileno())
            report_damage(self._path, damaged, f"; they are kept in {aside.name}")
        kept = [line for line in lines if step > 0 and json.loads(line)["step"] <= step]
        replace_file(self._path, _joined(kept))
        self._file = self._path.open("ab")

    @staticmethod
    def check(run: Path) -> None:
        """Makes sure, without changing anything, that a run folder has room for the files.

        Raises:
          UserError: something else is in their place.
        """
        for path in (run / FILE, run / DAMAGED_FILE):
            try:
                with contextlib.suppress(FileNotFoundError):
                    path.open("rb").close()
            except OSError as error:
                raise UserError(
                    f"{path} cannot be opened as a file ({error.strerror}): move it away, and the "
                    "same command goes on without it"
                ) from error
        samples = run / SAMPLES_FOLDER
        if samples.exists() and not samples.is_dir():
            raise UserError(
                f"{samples} is no folder: move it away, and the same command goes on without it"
            )

    def write(self, values: Mapping[str, Any]) -> None:
        """Appends a line; it is in the file when this returns."""
        self._file.write(_joined([_encoded(values)]))
        self._file.flush()

    def sample(self, step: int, drawn: bytes) -> None:
        """Keeps a text that the model made: `samples/STEP.txt`."""
        folder = self._path.parent / SAMPLES_FOLDER
        folder.mkdir(exist_ok=True)
        (folder / f"{step:08d}.txt").write_bytes(drawn)

    def merge(self, values: Mapping[str, Any]) -> None:
        """Adds figures to the line of metrics of their update, or appends one if there is none.

        What a diagnosis or a user's hook said of that update stands in lines behind it.
        """
        self._file.close()
        lines = self._path.read_bytes().splitlines()
        for place, line in enumerate(lines):
            found = parse(line)
            if found and is_figures(found) and found["step"] == values["step"]:
                lines[place] = _encoded(found | dict(values))
                break
        else:
            lines.append(_encoded(values))
        replace_file(self._path, _joined(lines))
        self._file = self._path.open("ab")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _encoded(values: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(values), allow_nan=False).encode()


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
