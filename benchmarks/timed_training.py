"""Runs `charlstm train` as a process, for a limited time."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.interleaved import ROOT
from charlstm.runtime.preemption import EXIT_SAVED
from charlstm.training.metrics_file import read_figures

Fields = Mapping[str, Any]  # values of the configuration, by address

_PROBE_UPDATES, _PROBE_LOG_EVERY = 15, 5
_SECONDS_TO_SAVE = 60.0


class Failed(Exception):
    """Reports that a command ended with an error; the message is the last line of it."""

    @classmethod
    def of(cls, errors: str, code: int) -> "Failed":
        """Makes the exception from the command's standard error and its exit code."""
        return cls((errors.strip().splitlines() or [f"exit code {code}"])[-1])


def train(
    config: str, folder: Path, fields: Fields, *flags: str, seconds: float | None = None
) -> bool:
    """Trains a configuration in a folder, or resumes the run that is there.

    Args:
      config: a name or a file, as for `charlstm train`.
      folder: the run folder.
      fields: values of the configuration's fields.
      flags: more of the command's flags.
      seconds: after this long the run is asked to save and to end.

    Returns:
      True if the run is finished, False if it was saved before its end.

    Raises:
      Failed: the run ended in any other way.
    """
    command = [sys.executable, "-m", "charlstm", "train", f"--config={config}"]
    command += [f"--workdir={folder}", *flags]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, cwd=ROOT, stderr=errors) as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    code = process.wait(_SECONDS_TO_SAVE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise Failed(f"did not end within {_SECONDS_TO_SAVE:.0f} s") from None
        if code in (0, EXIT_SAVED):
            return code == 0
        errors.seek(0)
        raise Failed.of(errors.read(), code)


def fit(
    config: str, seconds: float, evaluations: int, fields: Fields, *flags: str
) -> dict[str, Any]:
    """Returns fields with which a configuration's schedule ends after the given seconds.

    A short run measures how fast the configuration trains here, and how long it takes to start.

    Args:
      config: a name or a file, as for `charlstm train`.
      seconds: the time to train, from the compilation of the first update on.
      evaluations: how often the run is validated.
      fields, flags: as for `train`.

    Raises:
      Failed: the short run failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "probe"
        quiet = {"training.log_every": _PROBE_LOG_EVERY, "training.checkpoint_every": 0}
        stop = f"--stop_after={_PROBE_UPDATES}"
        train(config, folder, {**fields, **quiet}, stop, *flags)
        settings, last = settings_of(folder), read_figures(folder)[-1]
    bytes_per_update = bytes_of_update(settings)
    began = last["seconds"] - last["step"] * bytes_per_update / last["bytes_per_second"]
    left = max(1.0, seconds - began)
    updates = max(evaluations, int(left * last["bytes_per_second"] / bytes_per_update))
    return {
        "training.num_updates": updates,
        "training.evaluate_every": max(1, updates // evaluations),
        "optimizer.warmup_updates": min(
            settings["optimizer"]["warmup_updates"], max(0, updates // 10)
        ),
    }


def settings_of(folder: Path) -> dict[str, Any]:
    """Reads the configuration of a run."""
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return settings


def bytes_of_update(settings: dict[str, Any]) -> int:
    """Returns how many bytes of text one update of a configuration reads."""
    return int(settings["data"]["num_streams"] * settings["data"]["window_length"])
