"""`charlstm train` as a process, for as long as there is time."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.turns import ROOT
from charlstm.preemption import EXIT_SAVED
from charlstm.training.metrics import read_figures

Fields = Mapping[str, Any]  # of the configuration, by their addresses

_PROBE_UPDATES, _PROBE_LOG_EVERY = 15, 5
_SECONDS_TO_SAVE = 60.0


class Failed(Exception):
    """A command that ended with an error; its last line."""

    @classmethod
    def of(cls, errors: str, code: int) -> "Failed":
        """From what it wrote to standard error, and its exit code."""
        return cls((errors.strip().splitlines() or [f"exit code {code}"])[-1])


def train(
    config: str, folder: Path, fields: Fields, *flags: str, seconds: float | None = None
) -> bool:
    """Trains a configuration in a folder, or goes on there.

    Args:
      config: a name or a file, as for `charlstm train`.
      folder: the run folder.
      fields: values of the configuration's fields.
      flags: more of the command's flags.
      seconds: after this long the run is asked to save and to end.

    Returns:
      Whether the run came to its end.

    Raises:
      Failed: it ended otherwise.
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
    """Fields with which a configuration's schedule ends when so many seconds are over.

    A short run tells how fast it trains here, and how long it takes to begin.

    Args:
      config: a name or a file, as for `charlstm train`.
      seconds: of training, from the compilation of the first update on.
      evaluations: how often it is validated.
      fields, flags: as for `train`.

    Raises:
      Failed: the short run did.
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
    """The configuration of a run."""
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return settings


def bytes_of_update(settings: dict[str, Any]) -> int:
    """How much text an update of a configuration reads."""
    return int(settings["data"]["num_streams"] * settings["data"]["window_length"])
