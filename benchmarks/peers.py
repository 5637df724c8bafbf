"""Trains the same model, batch and window with charlstm and with its competitors, interleaved.

python -m benchmarks.peers
python -m benchmarks.peers --keras_python=/path/to/other/venv/bin/python
python -m benchmarks.peers --shapes=2x128-B32-T64 --seeds= --rounds=9
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.competitors.keras_seed import SHAPES as SEED_SHAPES
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_SHAPES = flags.DEFINE_list(
    "shapes",
    ["2x128-B32-T64", "3x512-B64-T64", "3x1024-B64-T32"],
    "Layers x hidden - batch - window, each compared with PyTorch, Flax and a plain scan.",
)
_SEEDS = flags.DEFINE_list("seeds", ["question", "answer"], "Seed scripts to compare with.")
_SEED_SHAPES = flags.DEFINE_list(
    "seed_shapes", [], "What charlstm trains beside each script instead of the same model."
)
_PEERS = flags.DEFINE_list("peers", ["torch", "nnx", "plain"], "Peers to compare with.")
_INPUTS = flags.DEFINE_list(
    "inputs", ["one-hot", "embedding"], "How PyTorch and Flax read bytes; the best one counts."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions", None, "PyTorch's, see torch_training.py; by default what suits the device."
)
_GRAPH_PRECISIONS = flags.DEFINE_list(
    "graph_precisions", [], "Precisions in which PyTorch also replays a CUDA graph of its update."
)
_DTYPE = flags.DEFINE_string("dtype", None, "charlstm's compute dtype; by default the device's.")
_KERAS_PYTHON = flags.DEFINE_string(
    "keras_python", sys.executable, "Interpreter that has TensorFlow and Keras."
)

# What charlstm trains beside each script: the script's model and batch, with windows.
_WINDOWED = {"question": "2x128-B32-T64", "answer": "3x1024-B64-T32-V84"}
_SUMMARY = (
    Column("shape", "shape"),
    Column("against", "charlstm against"),
    Column("charlstm_is", "is", reporting.ratio),
    Column("status", "status"),
)
# Of several forms of a competitor the fastest counts. Forms with huge pages are compared apart: the
# `charlstm` command requests them by itself, users of PyTorch would have to do it.
_FAMILIES = (
    "PyTorch nn.LSTM, float32",
    "PyTorch nn.LSTM",
    f"PyTorch nn.LSTM, {comparison.HUGE_PAGES}",
    "Flax nnx.RNN",
    "plain lax.scan",
    "Keras",
)


def main(argv: Sequence[str]) -> None:
    """Runs the comparisons that the flags ask for."""
    del argv
    report = common.new_report("peers", "Training against peers")
    summary = report.table("Summary", _SUMMARY)

    def compete(heading: str, entries: Sequence[tuple[Entry, Shape]]) -> None:
        comparison.measure(report, heading, comparison.COLUMNS, entries)
        rows = report.tables[heading]
        comparison.compare(rows, comparison.product_name("jax", _dtype()))
        summary.extend(_summary(heading, rows))
        comparison.write(report, "bytes_per_second", "bytes/s", say=False)

    for shape in common.shapes(filter(None, _SHAPES.value)):
        entries = [_charlstm(shape), *_peers(shape), *_products()]
        compete(str(shape), [(entry, shape) for entry in entries])

    scripts = [script for script in _SEEDS.value if script]
    windowed = _SEED_SHAPES.value or [_WINDOWED[script] for script in scripts]
    for script, shape in zip(scripts, common.shapes(windowed), strict=True):
        seed_shape = SEED_SHAPES[script]
        if common.TINY.value:
            sizes = shape.num_layers, shape.hidden_size, shape.num_streams
            seed_shape = Shape(*sizes, 1, shape.num_symbols)
        seed = comparison.seed(script, _KERAS_PYTHON.value, seed_shape)
        compete(f"the {script}'s model, {shape}", [(_charlstm(shape), shape), (seed, seed_shape)])

    report.notes.append(
        "Competitors ran interleaved, each in a process of its own; figures are medians over the "
        "interleaved runs. Idle CPU is the share of a core that a process used while others were "
        "measured."
    )
    comparison.write(report, "bytes_per_second", "bytes/s")


def _peers(shape: Shape) -> list[Entry]:
    inputs = _INPUTS.value
    precisions = _PRECISIONS.value or (
        ["tf32", "bfloat16", "float16"] if comparison.has_gpu() else ["float32", "bfloat16"]
    )
    entries: list[Entry] = []
    if "torch" in _PEERS.value:
        entries += comparison.torch(shape, inputs, precisions)
        if comparison.ENVIRONMENT and not comparison.has_gpu():
            entries += comparison.torch(shape, inputs, ["float32"], pages=True)
        entries += comparison.torch(shape, inputs, _GRAPH_PRECISIONS.value, graph=True)
    if "nnx" in _PEERS.value:
        entries += comparison.nnx(shape, inputs)
    if "plain" in _PEERS.value:
        entries.append(comparison.plain_scan(shape))
    return entries


def _products() -> list[Entry]:
    libraries = ["jax", "torch"] if "torch" in _PEERS.value else ["jax"]
    return [comparison.product(library, _dtype(), common.TINY.value) for library in libraries]


def _charlstm(shape: Shape) -> Entry:
    fields = {"model.compute_dtype": _DTYPE.value} if _DTYPE.value else {}
    return comparison.charlstm(shape, fields=fields)


def _dtype() -> str:
    return _DTYPE.value or ("bfloat16" if comparison.has_gpu() else "float32")


def _summary(heading: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compares charlstm with the fastest of each family, and with the product rate."""
    lines = []
    for family in _FAMILIES:
        words = family.split(", ")
        members = [
            r
            for r in rows
            if all(word in r["contestant"] for word in words)
            and (comparison.HUGE_PAGES in r["contestant"]) == (comparison.HUGE_PAGES in words)
        ]
        done = [r for r in members if "charlstm_is" in r]
        if done:
            best = min(done, key=lambda r: r["charlstm_is"])
            lines.append(
                {
                    "shape": heading,
                    "against": best["contestant"],
                    "charlstm_is": best["charlstm_is"],
                }
            )
        elif members:
            lines.append({"shape": heading, "against": family, "status": members[0]["status"]})
    lines = [line for number, line in enumerate(lines) if line not in lines[:number]]
    ours = next((r for r in rows if r["contestant"] == comparison.OURS), {})
    if "share_of_product_rate" in ours:
        share, name = ours["share_of_product_rate"], comparison.product_name("jax", _dtype())
        lines.append({"shape": heading, "against": name, "charlstm_is": share})
    return lines


if __name__ == "__main__":
    app.run(main)
