"""Keeps results in a file, one JSON object a line, each written as soon as it is there."""

import datetime
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import reporting
from benchmarks.competitors import versions_of
from benchmarks.reporting import Column, Report
from charlstm.errors import UserError

# The latest result of each part and name.
Rows = dict[tuple[str, str], dict[str, Any]]

OK = "ok"
SKIPPED = "skipped"  # what this device cannot do; to try it again would change nothing
# How figures are written in a line of text; others are in the file only.
_TEXTS: dict[str, Callable[[Any], str]] = {
    "bytes_per_second": lambda value: f"{value / 1e6:.4g} MB/s",
    "ms_per_update": "{:.2f} ms an update".format,
    "us_per_step": "{:.1f} µs a step".format,
    "charlstm_is": "charlstm is {:.2f}×".format,
    "flops_per_second": lambda value: f"{value / 1e12:.3g} TFLOP/s",
    "share_of_copy_bandwidth": "{:.1%} of a copy's bandwidth".format,
    "copy_bytes_per_second": lambda value: f"{value / 1e9:.4g} GB/s copied",
    "nats": "{:.3f} nats".format,
    "train_bits_per_byte": "{:.3f} bits per byte while training".format,
    "valid_bits_per_byte": "{:.4f} bits per byte of validation".format,
    "test_bits_per_byte": "{:.4f} of test".format,
    "updates": "{:,} updates".format,
    "recurrence": str,
    "loss_error": "loss {:.1e}".format,
    "gradient_error": "gradients {:.1e}".format,
    "compile_seconds": "compiled, or read from the cache, in {:.1f} s".format,
    "needed_bytes": lambda value: f"needs {value / 2**30:.3f} GiB",
    "device_peak_bytes": lambda value: f"peak {value / 2**30:.3f} GiB",
    "peak_to_needed": "{:.2f} times that".format,
    "stall_ms": "held up {:.0f} ms".format,
    "finish_seconds": "on disk after {:.2f} s".format,
    "restore_seconds": "restored in {:.2f} s".format,
    "exit_codes": "exit codes {}".format,
    "seconds": "{:.0f} s".format,
}
_COLUMNS = (Column("part", "part"), Column("name", "variant"), Column("status", "status"))
_MISSING = (Column("part", "part"), Column("name", "variant"), Column("reason", "reason"))


class Results:
    """The results in a folder: `results.jsonl`, and `summary.txt` for reading along.

    Args:
      folder: made if it is not there; what earlier calls wrote stays.
      about: device, versions and sizes, to be kept with every result.

    Raises:
      UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder, self.about = folder, about
        self._report = Report("gpu", "On one GPU", folder)
        self._path = folder / "results.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            if self.size() and not self._path.read_bytes().endswith(b"\n"):
                self._append(self._path, "")  # a call was killed while it wrote a line
        except OSError as error:
            raise UserError(
                f"--out={folder} cannot be written: {error.strerror}; choose another folder"
            ) from None

    def size(self) -> int:
        """Returns the number of bytes so far, for `rows`."""
        return self._path.stat().st_size

    def add(self, part: str, name: str, status: str, figures: dict[str, Any]) -> None:
        """Writes one result, to the file and as a line of text."""
        row = {"part": part, "name": name, "status": status, "figures": figures, **self.about}
        if "device" in figures:  # as the part's process sees it
            row["device"] = figures.pop("device")
        row["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._append(self._path, json.dumps(row, ensure_ascii=False))
        texts = ["" if status == OK else status, describe(figures)]
        self.say(": ".join([part, name, *filter(None, texts)]))

    def say(self, text: str) -> None:
        """Writes a line to standard output and to `summary.txt`."""
        print(text, flush=True)
        self._append(self.folder / "summary.txt", text)

    def rows(self, since: int = 0) -> Rows:
        """Returns the latest result of each part and name, for these sizes.

        Args:
          since: results before this byte of the file are left out.
        """
        rows = {}
        for line in self._path.read_bytes()[since:].splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # half a line
            if row.get("sizes") == self.about["sizes"]:
                rows[row["part"], row["name"]] = row
        return rows

    def write_report(self, missing: Sequence[dict[str, str]]) -> None:
        """Writes `gpu.md` and `gpu.json`: a table of all results, and what was not reached."""
        report = self._report
        report.versions |= self.about["versions"]
        rows = report.table("Results", (*_COLUMNS, Column("text", "figures")))
        rows += [row | {"text": describe(row["figures"])} for row in self.rows().values()]
        report.table("Not reached", _MISSING).extend(missing)
        report.write(say=False)

    @staticmethod
    def _append(path: Path, line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def is_final(row: dict[str, Any] | None) -> bool:
    """Returns True for a result that need not be measured again."""
    return row is not None and row["status"].startswith((OK, SKIPPED))


def is_out_of_reach(row: dict[str, Any] | None) -> bool:
    """Returns True for a result that needs a library which is still not installed."""
    needs = re.fullmatch(r"not installed \((\w+)\)", row["status"] if row else "")
    return needs is not None and importlib.util.find_spec(needs[1]) is None


def describe(figures: dict[str, Any]) -> str:
    """Writes the figures that have a form of text."""
    written = (form(figures[key]) for key, form in _TEXTS.items() if figures.get(key) is not None)
    return ", ".join(written)


def about_this_machine() -> dict[str, Any]:
    """Returns the device and the versions of the libraries, without loading one."""
    libraries = ("charlstm", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
    versions = versions_of(*(name for name in libraries if importlib.util.find_spec(name)))
    machine = reporting.machine()
    return {"device": ", ".join(machine["gpus"]) or machine["cpu"], "versions": versions}
