"""Measures how fast charlstm and PyTorch's step loop draw bytes, at several batch sizes.

  python -m benchmarks.sampling_throughput
  python -m benchmarks.sampling_throughput --models=3x1024 --batch=1,64

At batch 1 every byte needs every weight, so memory bandwidth is the limit as soon as the weights
are larger than the caches. The share is relative to a memory copy, measured in the same minutes.
"""

from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry, Outcome
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

_MODELS = flags.DEFINE_list("models", ["2x128", "3x512", "3x1024"], "Layers x hidden size.")
_BATCH = flags.DEFINE_list("batch", ["1", "8", "64", "512"], "Texts side by side.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "Compute dtype, of PyTorch's parameters too.")
_TORCH_THREADS = flags.DEFINE_list(
    "torch_threads", ["0", "1"], "PyTorch's threads (0: one a core); the fastest counts."
)

_COLUMNS = (
    Column("batch", "batch"),
    Column("contestant", "competitor"),
    Column("status", "status"),
    Column("bytes_per_second", "bytes/s", reporting.short),
    Column("bytes_per_second_range", "lowest – highest", reporting.span),
    Column("us_per_step", "µs/step", reporting.number(1)),
    Column("charlstm_is", "charlstm is", reporting.ratio),
    Column("share_of_copy_bandwidth", "weights read, of copy bandwidth", reporting.percent),
    Column("peak_rss_bytes", "peak memory", reporting.short),
    Column("idle_cpu_share", "idle CPU", reporting.percent),
)
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def main(argv: Sequence[str]) -> None:
    """Runs the comparisons that the flags ask for."""
    del argv
    report = common.new_report("sampling_throughput", "Sampling throughput")
    for model in _MODELS.value:
        rows = report.table(model, _COLUMNS)
        for batch in _BATCH.value:
            shape = Shape.parse(f"{model}-B{batch}-T1")
            common.say(f"{model}, batch {batch}")
            *outcomes, copy = common.compete([*_entries(shape), _copy()], report)
            rows.extend(_rows(shape, outcomes, copy))
            report.write(lambda figure: _draw(figure, report.tables), say=False)
    report.notes.append(
        "Every text starts from a prompt of one byte and a zero state; a step draws one byte in "
        "each. Copy bandwidth counts bytes read and bytes written."
    )
    report.write(lambda figure: _draw(figure, report.tables))


def _entries(shape: Shape) -> list[Entry]:
    spec = {"shape": shape.to_json(), "dtype": _DTYPE.value}
    peers = []
    for threads in _TORCH_THREADS.value:
        name = f"PyTorch nn.LSTM, {threads if int(threads) else 'all'} threads"
        peers.append(Entry(name, ".torch_sampling", spec | {"threads": int(threads)}))
    return [
        Entry(comparison.OURS, ".charlstm_sampling", spec, environment=comparison.ENVIRONMENT),
        *peers,
    ]


def _copy() -> Entry:
    spec = {"probe": "copy", "tiny": common.TINY.value}
    return Entry("copy", ".probes", spec, environment=comparison.ENVIRONMENT)


def _rows(shape: Shape, outcomes: list[Outcome], copy: Outcome) -> list[dict[str, Any]]:
    ours = next(o for o in outcomes if o.entry.name == comparison.OURS)
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {
            "batch": shape.num_streams,
            "contestant": outcome.entry.name,
            "status": outcome.status,
            "info": outcome.info,
        }
        if outcome.ok:
            row |= {
                "bytes_per_second": outcome.rate(shape.num_streams),
                "bytes_per_second_range": outcome.rates(shape.num_streams),
                "us_per_step": 1e6 / outcome.rate(),
                "steps_per_turn": outcome.count,
                "seconds": outcome.seconds,
                "peak_rss_bytes": outcome.peak_rss_bytes,
                "idle_cpu_share": outcome.idle_cpu_share,
            }
            if ours.ok:
                row["charlstm_is"] = ours.rate() / outcome.rate()
            if copy.ok and shape.num_streams == 1:
                weight_bytes = shape.weights_per_step * _ITEM_BYTES[_DTYPE.value]
                bandwidth = copy.value("bytes_per_second")
                row |= {
                    "copy_bytes_per_second": bandwidth,
                    "weight_bytes_per_step": weight_bytes,
                    "share_of_copy_bandwidth": weight_bytes * outcome.rate() / bandwidth,
                }
        rows.append(row)
    return rows


def _draw(figure: Any, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Draws bytes/s against the batch: one plot per model, one line per competitor."""
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axis, (model, rows) in zip(axes, tables.items(), strict=True):
        done = [row for row in rows if "bytes_per_second" in row]
        for name in dict.fromkeys(row["contestant"] for row in done):
            points = [(r["batch"], r["bytes_per_second"]) for r in done if r["contestant"] == name]
            axis.loglog(*zip(*points, strict=True), "o-", label=name)
        axis.set(title=model, xlabel="batch", ylabel="bytes/s")
        if done:
            axis.legend(fontsize=7)


if __name__ == "__main__":
    app.run(main)
