"""Writes results as JSON, Markdown tables and a picture, with machine, versions and command."""

import datetime
import functools
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.competitors import num_cores
from charlstm.benchmark.machine import cpu_model
from charlstm.benchmark.table import Column as Column
from charlstm.benchmark.table import markdown_table as markdown_table
from charlstm.benchmark.table import number as number
from charlstm.benchmark.table import percent as percent
from charlstm.benchmark.table import ratio as ratio
from charlstm.benchmark.table import short as short
from charlstm.benchmark.table import span as span

ROOT = Path(__file__).parents[1]


class Report:
    """Collects what one benchmark found, and writes it.

    Args:
      name: the name of the benchmark and of its files.
      title: the heading for readers.
      out: the folder to write to.

    Attributes:
      tables: rows by heading.
      notes: texts to write below the tables.
      versions: library versions by name.
      devices: the devices that competitors ran on.
    """

    def __init__(self, name: str, title: str, out: Path):
        self._name, self._title, self._out = name, title, out
        self._begin = datetime.datetime.now(datetime.UTC)
        self._columns: dict[str, Sequence[Column]] = {}
        self._load = os.getloadavg()[0]
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.notes: list[str] = []
        self.versions: dict[str, str] = {}
        self.devices: list[str] = []

    def learn(self, info: dict[str, Any]) -> None:
        """Takes versions and the device from what a competitor reports about itself."""
        self.versions |= info.get("versions", {})
        device = info.get("device")
        if device is not None and device not in self.devices:
            self.devices.append(device)

    def table(self, heading: str, columns: Sequence[Column]) -> list[dict[str, Any]]:
        """Adds an empty table and returns the list that its rows are to be appended to."""
        self._columns[heading], self.tables[heading] = columns, []
        return self.tables[heading]

    def facts(self) -> dict[str, Any]:
        """Returns machine, versions, command, date and revision."""
        python = {"python": platform.python_version()}
        return {
            "date": self._begin.isoformat(timespec="seconds"),
            "seconds": round((datetime.datetime.now(datetime.UTC) - self._begin).total_seconds()),
            "command": command(),
            "revision": revision(),
            "machine": machine() | {"devices": self.devices, "load_at_start": self._load},
            "versions": python | dict(sorted(self.versions.items())),
        }

    def write(self, draw: Callable[[Any], None] | None = None, say: bool = True) -> None:
        """Writes NAME.json, NAME.md and NAME.png, replacing older files, and prints the tables.

        Args:
          draw: draws on a matplotlib `Figure`; without matplotlib there is no picture.
          say: whether to print.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        tables = {heading: rows for heading, rows in self.tables.items() if rows}
        picture = self._out / f"{self._name}.png"
        drawn = draw is not None and _draw(draw, picture)
        notes = list(self.notes)
        if draw is not None and not drawn:
            notes.append("matplotlib is not installed: no picture.")
        values = {"benchmark": self._name} | self.facts() | {"notes": notes, "tables": tables}
        path = self._out / f"{self._name}.json"
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        text = self._markdown(tables, notes, picture.name if drawn else None)
        (self._out / f"{self._name}.md").write_text(text)
        if say:
            print(text)

    def _markdown(
        self, tables: dict[str, list[dict[str, Any]]], notes: list[str], picture: str | None
    ) -> str:
        facts = self.facts()
        machine = facts["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        devices = f"; {', '.join(machine['devices'])}" if machine["devices"] else ""
        parts = [
            f"# {self._title}",
            f"{facts['date']}, {machine['cpu']}, {machine['cores']} cores{devices}; "
            f"{facts['revision'] or 'no git revision'}; {versions}",
            f"`{facts['command']}` ({facts['seconds']} s)",
        ]
        for heading, rows in tables.items():
            parts += [f"## {heading}", markdown_table(rows, self._columns[heading])]
        parts += notes
        if picture:
            parts.append(f"![{self._title}]({picture})")
        return "\n\n".join(parts) + "\n"


def command() -> str:
    """Returns the command line of this process, as one would type it."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    called = ["python", "-m", main.name] if main else ["python", sys.argv[0]]
    called[-1] = called[-1].removesuffix(".__main__")  # of a package
    return shlex.join([*called, *sys.argv[1:]])


@functools.cache
def revision() -> str | None:
    """Returns this checkout's git revision, marked if files differ from it; None outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *arguments],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", "charlstm", "benchmarks", ":!benchmarks/results")
    return f"{found} with changes" if found and changed else found


@functools.cache
def machine() -> dict[str, Any]:
    """Returns the processor, its cores and memory, the system, and the GPUs."""
    return {
        "cpu": cpu_model(),
        "cores": num_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "gpus": _gpus(),
    }


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _draw(draw: Callable[[Any], None], path: Path) -> bool:
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    draw(figure)
    figure.savefig(path, dpi=110)
    return True
