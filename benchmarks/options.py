"""Measures what charlstm's options cost: each one while it is on, and all while they are off.

  python -m benchmarks.options
  python -m benchmarks.options --shapes=3x1024-B64-T32 --options="dropout,moving average"

Training with every option off runs interleaved with the same training without any option's code,
and with training with each option alone.
"""

from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks import common, comparison, reporting
from benchmarks.interleaved import Entry
from benchmarks.reporting import Column
from charlstm.benchmark.shapes import Shape

BARE = "without the options' code"
OPTIONS: dict[str, dict[str, Any]] = {
    "dropout": {"model.dropout": 0.2, "model.input_dropout": 0.1, "model.output_dropout": 0.2},
    "locked dropout": {
        "model.dropout": 0.2,
        "model.input_dropout": 0.1,
        "model.output_dropout": 0.2,
        "model.dropout_kind": "locked",
    },
    "dropped recurrent weights": {"model.weight_dropout": 0.3},
    "activation regularisation": {
        "training.activation_regularization": 2.0,
        "training.temporal_activation_regularization": 1.0,
    },
    "moving average": {"optimizer.averaging": "ema"},
    "triggered average": {"optimizer.averaging": "triggered"},
    "layer normalisation": {"model.layer_norm": True},
    "residual connections": {"model.connections": "residual"},
    "skip connections": {"model.connections": "skip"},
    "embedding of 64": {"model.embedding_size": 64},
}

_SHAPES = flags.DEFINE_list("shapes", ["2x128-B32-T64", "3x512-B64-T64"], "What is trained.")
_OPTIONS = flags.DEFINE_list(
    "options", list(OPTIONS), "Options to switch on, each alone; none compares what is off only."
)

flags.register_validator(
    "options",
    lambda names: set(names) <= {*OPTIONS, ""},
    f"must be some of: {', '.join(OPTIONS)}",
)

_COLUMNS = (
    *comparison.COLUMNS[:5],
    Column("times_off", "speed, times all off", reporting.ratio),
    Column("peak_rss_bytes", "peak memory", reporting.short),
)


def main(argv: Sequence[str]) -> None:
    """Measures every shape."""
    del argv
    report = common.new_report("options", "What options cost")
    for shape in common.shapes(_SHAPES.value):
        entries = [(entry, shape) for entry in _entries(shape)]
        comparison.measure(report, str(shape), _COLUMNS, entries)
        comparison.relate(report.tables[str(shape)], "bytes_per_second", "times_off")
        comparison.write(report, "bytes_per_second", "bytes/s", say=False)
    comparison.write(report, "bytes_per_second", "bytes/s")


def _entries(shape: Shape) -> list[Entry]:
    bare = {"shape": shape.to_json()}
    entries = [
        comparison.charlstm(shape, f"{comparison.OURS}, all off"),
        Entry(
            f"{comparison.OURS}, {BARE}", ".bare_training", bare, environment=comparison.ENVIRONMENT
        ),
    ]
    for name in filter(None, _OPTIONS.value):
        entries.append(
            comparison.charlstm(shape, f"{comparison.OURS}, {name}", fields=OPTIONS[name])
        )
    return entries


if __name__ == "__main__":
    app.run(main)
