"""Measures everything on a machine with one NVIDIA GPU, in stages of at most ten minutes.

  python -m benchmarks.gpu --out=DIR
  python -m benchmarks.gpu --out=DIR --stage=correctness,peers
  python -m benchmarks.gpu --out=DIR --tiny          # a rehearsal, on a CPU too

- correctness: every recurrence against float64.
- peers: 3 x 1024 against PyTorch's cuDNN, in every precision that PyTorch trains in.
- tune: recurrences with and without XLA's command buffers and double buffering.
- dispatch: the number of updates in one jitted call (a dispatch), and float32 against bfloat16.
- sampling: batches of 1 to 512 against PyTorch's step loop.
- recipes: tinyshakespeare and shakespeare, with dynamic evaluation of both.
- enwik8: eight minutes of a run planned for thirty; running the stage again resumes it.

Without a network, the texts of the recipes come from the cache ($XDG_CACHE_HOME).
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from benchmarks import common
from benchmarks.suite import Run, run_all

STAGES = ("correctness", "peers", "tune", "dispatch", "sampling", "recipes", "enwik8")
_STAGE = flags.DEFINE_list("stage", list(STAGES), "Stages to run.")
_STAGE_SECONDS = flags.DEFINE_float("stage_seconds", 570.0, "A stage is ended after this long.")
_MODEL = flags.DEFINE_string("model", "3x1024", "Layers x hidden size.")
_BATCHES = flags.DEFINE_list("batches", ["64", "256", "1024"], "Numbers of streams.")
_WINDOW = flags.DEFINE_integer("window", 128, "Window length.", 1)
_RECURRENCE = flags.DEFINE_list("recurrence", ["scan", "wavefront"], "What is tuned.")

# Fastest first. float16 has no loss scaling; half-precision parameters are less exact than ours.
_PRECISIONS = "float16,bfloat16,tf32,float16-parameters,bfloat16-parameters"
_COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer=+WHILE --xla_gpu_graph_min_graph_size=1"
_XLA_FLAGS = {
    "as is": "",
    "command buffers": _COMMAND_BUFFERS,
    "command buffers unrolled": (f"{_COMMAND_BUFFERS} --xla_gpu_command_buffer_unroll_loops=true"),
    "double buffering": "--xla_gpu_enable_while_loop_double_buffering=true",
}

# Rehearsals use a public text and networks of a few units.
_TINY_RECIPES = [
    "--corpus=tinyshakespeare",
    "--seconds=5",
    "--at_once=10",
    "--evaluations=2",
    "--nodynamic",
    "--field=model.hidden_size=8",
    "--field=model.parameter_budget=0",
    "--field=data.num_streams=4",
    "--field=data.window_length=8",
    "--field=data.valid_size=0.01",
    "--field=data.test_size=0.01",
]


def main(argv: Sequence[str]) -> None:
    """Runs the stages; the exit code is 1 if one did not finish."""
    del argv
    out = common.OUT.value
    troubles = []
    for stage in _STAGE.value:
        troubles += run_all(_runs(stage), out, _STAGE_SECONDS.value)
    common.say("\n".join(["done", *troubles]))
    sys.exit(bool(troubles))


def _runs(stage: str) -> list[Run]:
    tiny = common.TINY.value
    model = "2x16" if tiny else _MODEL.value
    batches = ["4"] if tiny else _BATCHES.value
    window = 8 if tiny else _WINDOW.value
    shapes = [f"{model}-B{batch}-T{window}" for batch in batches]
    few = ["--tiny", "--rounds=1", "--turn_seconds=0.02"] if tiny else ["--turn_seconds=1"]
    dtype = "float32" if tiny else "bfloat16"
    xla = [f"--xla_flags={name}={flags}" for name, flags in _XLA_FLAGS.items()]
    recurrences = f"--recurrence={','.join(_RECURRENCE.value)}"
    rehearsal = _TINY_RECIPES if tiny else []
    match stage:
        case "correctness":
            return [Run("correctness", ["--shape=2x16-B4-T8"] if tiny else [])]
        case "peers":
            only_torch = ["--seeds=", "--peers=torch", "--inputs=one-hot"]
            precisions = "float32" if tiny else _PRECISIONS
            graphs = [] if tiny else ["--graph_precisions=float16,float16-parameters"]
            arguments = [*only_torch, f"--precisions={precisions}", *graphs, *few]
            return [Run("peers", [f"--shapes={','.join(shapes)}", *arguments])]
        case "tune":
            ends = dict.fromkeys((shapes[0], shapes[-1]))
            arguments = [f"--dtype={dtype}", "--nomemory", recurrences, *xla, *few]
            return [
                Run("train_throughput", [f"--shapes={shape}", f"--name=tune-{shape}", *arguments])
                for shape in ends
            ]
        case "dispatch":
            middle = f"--shapes={shapes[len(shapes) // 2]}"
            counts = ["--updates_per_dispatch=1,8,64", f"--dtype={dtype}", "--name=dispatch"]
            dtypes = [
                f"--dtype={'float32' if tiny else 'bfloat16,float32'}",
                recurrences,
                "--name=dtypes",
            ]
            return [Run("train_throughput", [middle, *extra, *few]) for extra in (counts, dtypes)]
        case "sampling":
            sizes = ["--models=2x16", "--batch=1"] if tiny else [f"--models={model}"]
            return [Run("sampling_throughput", [*sizes, f"--dtype={dtype}", *few])]
        case "recipes":
            recipes = ["--recipes=tinyshakespeare,shakespeare", "--seconds=180"]
            return [Run("recipes", [*recipes, *rehearsal])]
        case "enwik8":
            recipe = ["--recipes=enwik8", "--name=enwik8", "--seconds=1700", "--at_once=490"]
            return [Run("recipes", [*recipe, *rehearsal])]
    raise app.UsageError(f"no stage {stage!r}; the stages are {', '.join(STAGES)}")


if __name__ == "__main__":
    app.run(main)
