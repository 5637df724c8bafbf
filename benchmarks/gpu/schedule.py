"""Runs parts one after another, each in a process of its own, within a budget of seconds."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.parts import Part, Settings
from benchmarks.gpu.results import Results, Rows, is_final, is_out_of_reach
from benchmarks.gpu.work import Work
from benchmarks.interleaved import ROOT

# A part is asked to end so many seconds before its share is over, and killed at the end of it.
GRACE = 3.0


class Schedule:
    """Runs parts, and knows what is missing.

    Args:
      settings: what is measured.
      results: where results go.
      deadline: the end of the budget, as `time.monotonic` counts.
      again: True measures again what has a result from an earlier call.
    """

    def __init__(self, settings: Settings, results: Results, deadline: float, again: bool = False):
        self._settings, self._results, self._deadline = settings, results, deadline
        self._since = results.size() if again else 0
        self._reasons: dict[str, str] = {}

    def run(self, parts: Sequence[Part]) -> list[dict[str, str]]:
        """Runs parts in order, and writes the report after each.

        Returns:
          What has no result in the end: part, name and reason.
        """
        self._reasons = {part.name: "the call was ended before its turn" for part in parts}
        try:
            for part in parts:
                self._reasons[part.name] = self._run(part)
                self._results.write_report(self.missing(parts))
        finally:
            missing = self.missing(parts)
            self._results.write_report(missing)
        for entry in missing:
            self._results.say("not reached: {part}: {name}: {reason}".format(**entry))
        return missing

    def missing(self, parts: Sequence[Part]) -> list[dict[str, str]]:
        """Returns what has no result, or only one that failed: part, name and reason."""
        rows = self._results.rows(self._since)
        missing = []
        for part in parts:
            for name in self._names_missing(part, rows):
                row = rows.get((part.name, name))
                reason = row["status"] if row else self._reasons[part.name]
                missing.append({"part": part.name, "name": name, "reason": reason})
        return missing

    def _names_missing(self, part: Part, rows: Rows) -> list[str]:
        names = part.variants(self._settings)
        return [name for name in names if not is_final(rows.get((part.name, name)))]

    def _run(self, part: Part) -> str:
        """Runs a part if there is time for it; returns why it has left out what is missing."""
        rows = self._results.rows(self._since)
        names = self._names_missing(part, rows)
        names = [name for name in names if not is_out_of_reach(rows.get((part.name, name)))]
        left = self._deadline - time.monotonic()
        if not names:
            self._results.say(f"== {part.name}: all that can be measured here is there")
            return ""
        if part.seconds > left:
            reason = f"its {part.seconds} s do not fit into the {left:.0f} s that are left"
            self._results.say(f"== {part.name}: {reason}")
            return reason
        seconds = left if part.takes_the_rest else part.seconds
        self._results.say(f"== {part.name}: {seconds:.0f} of {left:.0f} s")
        work = Work(
            part=part.name,
            module=part.module,
            seconds=seconds - GRACE,
            folder=str(self._results.folder),
            tiny=self._settings.tiny,
            variants=part.variants(self._settings),
            missing=names,
            about=self._results.about,
        )
        begin = time.monotonic()
        reason = run_process(work, self._results.folder / f"log-{part.name}.txt")
        took = f"{time.monotonic() - begin:.0f} s"
        self._results.say(f"== {part.name}: {reason or 'done'} after {took}")
        return reason or f"no time for it in the {seconds:.0f} s of its part"


def run_process(work: Work, log: Path) -> str:
    """Runs a part's process to its end, or ends it when its time is over.

    Args:
      work: what it is told.
      log: gets its standard error; its standard output goes where this process's does.

    Returns:
      What went wrong, in one line; empty if nothing did.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.work", work.to_json()]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=errors, start_new_session=True
        )
    try:
        code = process.wait(work.seconds)
    except subprocess.TimeoutExpired:
        return f"ended when its {work.seconds + GRACE:.0f} s were over"
    finally:
        end_group(process)
    if code == 0:
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1].strip()[:200] if lines else 'no message'}"


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and its group: asks them, and kills what is left after `GRACE`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < until:
                process.poll()  # one that has ended is in the group until it is waited for
                os.killpg(process.pid, 0)
                time.sleep(0.05)
            continue
        break
    process.wait()
