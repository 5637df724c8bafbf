"""Runs all benchmarks, one after another.

  python -m benchmarks.all --small     # checks that all work: under five minutes on two CPU cores
  python -m benchmarks.all             # the full version, as in results/: about ninety minutes

Small runs write to a subfolder of the results folder, so they never replace real results.
"""

import sys
import time
from collections.abc import Sequence

from absl import app, flags

from benchmarks import common
from benchmarks.suite import Run, run_all

_SMALL = flags.DEFINE_boolean("small", False, "A small version of each.")
_SECONDS = flags.DEFINE_float("seconds", 2 * 3600.0, "After this long the rest is left out.")
_KERAS_PYTHON = flags.DEFINE_string(
    "keras_python", None, "Interpreter that has TensorFlow and Keras, if not this one."
)

_FEW = ("--rounds=3", "--turn_seconds=0.3")
_SHAPE = "--shapes=2x64-B16-T32"
_RATE = "--field=optimizer.learning_rate"
SMALL = (
    Run("correctness", ("--dtype=float32", "--shape=2x16-B4-T8")),
    Run(
        "peers",
        (
            _SHAPE,
            "--inputs=one-hot",
            "--precisions=float32",
            "--seeds=question",
            *_FEW,
        ),
    ),
    Run("train_throughput", ("--shapes=2x128-B32-T64", "--nomemory", *_FEW)),
    Run("sampling_throughput", ("--models=2x64", "--batch=1,64", "--torch_threads=1", *_FEW)),
    Run("input_pipeline", (_SHAPE, f"--text_bytes={2**24}", *_FEW)),
    Run("checkpoint_stall", (_SHAPE, *_FEW)),
    Run("scaling", (_SHAPE, "--devices=1,2", "--noweak", *_FEW)),
    Run("options", ("--shapes=1x64-B16-T32", "--options=", *_FEW)),
    Run("watching", ("--rounds=1", "--turn_seconds=3", "--settle_seconds=0")),
    Run("time_to_quality", ("--seconds=10", "--seeds=question", "--evaluations=2")),
)
_SWEEP = (
    "--shapes=1x256-B32-T64,2x128-B32-T64,2x128-B32-T1,2x256-B64-T64,3x512-B64-T64,3x1024-B64-T32",
    "--recurrence=scan,scan_columns,wavefront",
)
_STREAMS = (
    "--shapes=2x128-B128-T32,1x256-B64-T64,2x256-B32-T64,2x256-B64-T64,2x256-B128-T32,2x512-B16-T64",
    "--recurrence=scan,scan_columns",
)
_SIZES = "--shapes=2x128-B32-T64,3x512-B64-T64,3x1024-B64-T32"
_BFLOAT16 = ("--dtype=bfloat16", "--precisions=bfloat16", "--seeds=")
FULL = (
    Run("correctness"),
    Run("peers", ("--turn_seconds=3",)),
    Run("train_throughput", (*_SWEEP, "--rounds=3", "--turn_seconds=1")),
    Run("train_throughput", ("--name=train_throughput_streams", *_STREAMS, "--nomemory")),
    Run("sampling_throughput", ("--turn_seconds=2",)),
    Run("input_pipeline"),
    Run("checkpoint_stall", ("--rounds=9", "--turn_seconds=4")),
    Run("scaling"),
    Run("options", ("--rounds=9", "--turn_seconds=2")),
    Run("watching", ("--rounds=6", "--turn_seconds=20")),
    Run("time_to_quality", ("--seconds=60", "--evaluations=3")),
    *(
        Run("mogrifier", (f"--name=mogrifier_rate_{rate}", "--updates=2000", f"{_RATE}={rate}"))
        for rate in (0.003, 0.006, 0.012)
    ),
    Run("mogrifier", ("--name=mogrifier_plain_3500", "--updates=3500", "--gating_rounds=")),
    Run("peers", ("--name=peers_bfloat16", *_BFLOAT16, "--turn_seconds=2")),
    Run(
        "train_throughput",
        (
            "--name=train_throughput_bfloat16",
            _SIZES,
            "--dtype=float32,bfloat16",
            "--rounds=3",
            "--turn_seconds=1",
        ),
    ),
)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmarks; the exit code is 1 if one did not finish."""
    del argv
    begin = time.monotonic()
    out = f"{common.OUT.value}/small" if _SMALL.value else common.OUT.value
    keras = (f"--keras_python={_KERAS_PYTHON.value}",) if _KERAS_PYTHON.value else ()
    runs = [
        Run(
            run.name, (*run.arguments, *(keras if run.name in ("peers", "time_to_quality") else ()))
        )
        for run in (SMALL if _SMALL.value else FULL)
    ]
    troubles = run_all(runs, out, _SECONDS.value)
    common.say("\n".join([f"all took {time.monotonic() - begin:.0f} s", *troubles]))
    sys.exit(bool(troubles))


if __name__ == "__main__":
    app.run(main)
