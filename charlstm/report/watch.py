"""Writes a report once, or repeatedly while a run goes on.

A separate process watches the run folder at the lowest priority, so that training is not slowed
down. It writes the page again only if the run has something new.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from charlstm.pages import html
from charlstm.report.page import render
from charlstm.report.runs import Run, RunReader
from charlstm.storage import paths

LOWEST_PRIORITY = 19


def write_report(readers: Sequence[RunReader], output: Path) -> None:
    """Writes the report.

    Raises:
      UserError: a folder is not a run folder, or the page cannot be written.
    """
    html.write(output, render([reader.read() for reader in readers], output))


def watch(readers: Sequence[RunReader], output: Path, every_seconds: int) -> None:
    """Keeps the report up to date until every run is finished.

    A run that has not begun is waited for.

    Raises:
      UserError: as for `write_report`.
    """
    if hasattr(os, "nice"):
        os.nice(LOWEST_PRIORITY)
    for reader in readers:
        paths.be_patient(reader.folder)
    if not all(reader.exists() for reader in readers):
        logging.info("waiting for the run to begin")
    shown: Any = None
    while True:
        if all(reader.exists() for reader in readers):
            runs = [reader.read() for reader in readers]
            finished = all(run.is_finished for run in runs)
            if finished or _newest(runs) != shown:
                shown = _newest(runs)
                html.write(output, render(runs, output, None if finished else every_seconds))
                logging.info("%s", ", ".join(f"{run.name}: update {run.step:,}" for run in runs))
            if finished:
                return
        time.sleep(every_seconds)


def _newest(runs: Sequence[Run]) -> list[tuple[int, int, int]]:
    """Returns values that change when a run has something new."""
    return [(len(run.lines), len(run.samples), len(run.profiles)) for run in runs]
