"""Runs `charlstm train` and `charlstm sample` as a user would, and keeps what they say."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.work import Work
from benchmarks.interleaved import ROOT
from benchmarks.timed_training import Failed
from charlstm.benchmark.shapes import TEXT_BYTES, Shape, make_text
from charlstm.data.registry import CORPORA
from charlstm.runtime.preemption import EXIT_SAVED
from charlstm.training.metrics_file import FILE, read_figures

_TINY_TEXT_BYTES = 100_000


def measure(work: Work) -> None:
    """Trains for a while from the first update on, ends the run by SIGTERM, and samples from it."""
    for name, variant in work.turns():
        with (
            work.result(name) as figures,
            tempfile.TemporaryDirectory() as temporary,
        ):
            run = Path(temporary) / "run"
            code = _train(
                run, variant, corpus_for(work, "shakespeare"), Path(work.folder) / "train-log.txt"
            )
            last = read_figures(run)[-1]
            about = json.loads((run / "about.json").read_text())
            shutil.copy(run / FILE, Path(work.folder) / f"train-{FILE}")
            kept = "bytes_per_second", "train_bits_per_byte", "seconds", "lost_seconds"
            figures |= {"updates": last["step"], **{key: last[key] for key in kept}}
            figures |= {
                "corpus": about["corpus"]["name"],
                "device": about["environment"]["devices"],
            }
            command = charlstm("sample", f"--checkpoint={run}", "--num_bytes=300", "--raw")
            sampled = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
            figures["exit_codes"] = [code, sampled.returncode]
            (Path(work.folder) / "train-sample.txt").write_bytes(sampled.stdout)
            if sampled.returncode:
                raise Failed.of(sampled.stderr.decode(errors="replace"), sampled.returncode)


def _train(run: Path, variant: dict[str, Any], corpus: str, log: Path) -> int:
    """Trains, sends SIGTERM so many seconds after the first figures, and returns the exit code.

    Raises:
      Failed: the command ended otherwise than with a saved run.
    """
    shape = Shape(**variant["shape"])
    fields = {
        "model.num_layers": shape.num_layers,
        "model.hidden_size": shape.hidden_size,
        "data.num_streams": shape.num_streams,
        "data.window_length": shape.window_length,
        "data.corpus": corpus,
        "training.num_updates": 10**6,
        "training.log_every": 20,
        "training.sample_every": 0,
    }
    flags = [f"--config.{field}={value}" for field, value in fields.items()]
    command = charlstm("train", "--config=quickstart", f"--workdir={run}", *flags)
    with log.open("w+") as errors, subprocess.Popen(command, cwd=ROOT, stderr=errors) as process:
        while process.poll() is None and not read_figures(run):
            time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(variant["seconds"])
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code != EXIT_SAVED:
        raise Failed.of(log.read_text(errors="replace"), code)
    return code


def charlstm(*arguments: str) -> list[str]:
    """Returns the command line of a command of charlstm."""
    return [sys.executable, "-m", "charlstm", *arguments]


def corpus_for(work: Work, name: str) -> str:
    """Returns the name of a corpus whose text is in the cache, or the path of a text made here."""
    if CORPORA[name].is_cached and not work.tiny:
        return name
    path = Path(work.folder) / "made-text"
    path.write_bytes(make_text(_TINY_TEXT_BYTES if work.tiny else TEXT_BYTES).tobytes())
    return str(path)
