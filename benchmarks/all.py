"""All benchmarks, one after another.

  python -m benchmarks.all --small     # under five minutes on two CPU cores: that all of it works
  python -m benchmarks.all             # the whole of it, as in results/: about ninety minutes

Small runs write to a folder of their own, so that they never replace real results.
"""

import sys
import time
from collections.abc import Sequence

from absl import app, flags

from benchmarks import common
from benchmarks.suite import Run, run_all

_SMALL = flags.DEFINE_boolean("small", False, "A small version of each.")
_SMALL_OUT = flags.DEFINE_string("small_out", "benchmarks/results/small", "Where --small writes.")
_SECONDS = flags.DEFINE_float("seconds", 2 * 3600.0, "After this long the rest is left out.")
_KERAS_PYTHON = flags.DEFINE_string(
    "keras_python", sys.executable, "Interpreter that has TensorFlow and Keras."
)

_FEW = ("--rounds=3", "--turn_seconds=0.3")
_SHAPE = "--shapes=2x64-B16-T32"
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
FULL = (
    Run("correctness"),
    Run("peers"),
    Run("sampling_throughput"),
    Run("train_throughput"),
    Run("input_pipeline"),
    Run("checkpoint_stall", ("--turn_seconds=8",)),
    Run("scaling"),
    Run("options"),
    Run("watching", ("--rounds=6", "--turn_seconds=20")),
    Run("time_to_quality"),
)


def main(argv: Sequence[str]) -> None:
    """Runs them; the exit code is 1 if one did not come to its end."""
    del argv
    begin = time.monotonic()
    out = _SMALL_OUT.value if _SMALL.value else common.OUT.value
    keras = (f"--keras_python={_KERAS_PYTHON.value}",)
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
