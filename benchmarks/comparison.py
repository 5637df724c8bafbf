"""Lists the competitors in comparisons of training, and makes the rows and pictures of them."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks import common, reporting
from benchmarks.interleaved import Entry, Outcome
from benchmarks.reporting import Column, Report
from charlstm.benchmark.shapes import Shape
from charlstm.runtime import huge_pages

OURS = "charlstm"
# The `charlstm` command starts its process with this environment. The rates that charlstm is
# compared with are measured with it, too.
ENVIRONMENT = huge_pages.environment()
HUGE_PAGES = "huge pages"
COLUMNS = (
    Column("contestant", "competitor"),
    Column("status", "status"),
    Column("bytes_per_second", "bytes/s", reporting.short),
    Column("bytes_per_second_range", "lowest – highest", reporting.span),
    Column("ms_per_update", "ms/update", reporting.number(2)),
    Column("charlstm_is", "charlstm is", reporting.ratio),
    Column("flops_per_second", "FLOP/s", reporting.short),
    Column("share_of_product_rate", "of product rate", reporting.percent),
    Column("prepare_seconds", "start s", reporting.number(1)),
    Column("peak_rss_bytes", "peak memory", reporting.short),
    Column("idle_cpu_share", "idle CPU", reporting.percent),
)


def has_gpu() -> bool:
    """Returns True if there is an NVIDIA GPU.

    It loads no library, because that would take some of the GPU's memory.
    """
    return bool(reporting.machine()["gpus"])


def charlstm(shape: Shape, name: str = OURS, **spec: Any) -> Entry:
    """Returns the entry of charlstm itself; further keywords go to the spec of `Training`."""
    environment = ENVIRONMENT | spec.pop("environment", {})
    spec["shape"] = shape.to_json()
    return Entry(name, ".charlstm_training", spec, environment=environment)


def torch(
    shape: Shape,
    inputs: Sequence[str],
    precisions: Sequence[str],
    *,
    graph: bool = False,
    pages: bool = False,
) -> list[Entry]:
    """Returns PyTorch's nn.LSTM in every combination of inputs and precisions.

    With `pages`, its process starts with the environment of the `charlstm` command.
    """
    form = (", CUDA graph" if graph else "") + (f", {HUGE_PAGES}" if pages else "")
    return [
        Entry(
            f"PyTorch nn.LSTM, {kind}, {precision}{form}",
            ".torch_training",
            {"shape": shape.to_json(), "inputs": kind, "precision": precision, "graph": graph},
            environment=ENVIRONMENT if pages else {},
        )
        for precision in precisions
        for kind in inputs
    ]


def nnx(shape: Shape, inputs: Sequence[str]) -> list[Entry]:
    """Returns Flax's nnx.RNN, once for each form of input."""
    return [
        Entry(f"Flax nnx.RNN, {kind}", ".nnx_training", {"shape": shape.to_json(), "inputs": kind})
        for kind in inputs
    ]


def plain_scan(shape: Shape) -> Entry:
    """Returns the scan over time that one would write first."""
    return Entry("plain lax.scan", ".plain_scan", {"shape": shape.to_json()})


def seed(script: str, python: str, shape: Shape | None = None) -> Entry:
    """Returns one of the two Keras scripts that charlstm starts from.

    A `shape` replaces the script's own, for rehearsals.
    """
    spec: dict[str, Any] = {"script": script}
    if shape is not None:
        spec["shape"] = shape.to_json()
    return Entry(f"Keras 3, the {script}'s script", ".keras_seed", spec, python=python)


def transformer(recipe: str, python: str, spec: dict[str, Any]) -> Entry:
    """Returns a transformer with one of nanoGPT's recipes; see `torch_transformer.prepare`."""
    spec = {"recipe": recipe, **spec}
    return Entry(
        f"transformer, {recipe}", ".torch_transformer", spec, python=python, count=1, warm_up=0
    )


def product_name(library: str, dtype: str) -> str:
    """Returns the name of a product rate in tables."""
    return f"{dtype} products, {'JAX' if library == 'jax' else 'PyTorch'}"


def product(library: str, dtype: str, tiny: bool = False) -> Entry:
    """Returns the probe that measures the rate of large products."""
    spec = {"probe": "product", "library": library, "dtype": dtype, "tiny": tiny}
    return Entry(product_name(library, dtype), ".probes", spec, environment=ENVIRONMENT)


def row(outcome: Outcome, shape: Shape) -> dict[str, Any]:
    """Returns one competitor's row, without the figures that compare it with others.

    Args:
      outcome: the result of its runs.
      shape: the model and batch that one of its updates trains.
    """
    values: dict[str, Any] = {"contestant": outcome.entry.name, "status": outcome.status}
    values |= {"info": outcome.info, "updates_per_turn": outcome.count, "seconds": outcome.seconds}
    if not outcome.ok:
        return values
    values |= {
        "prepare_seconds": outcome.info["prepare_seconds"],
        "peak_rss_bytes": outcome.peak_rss_bytes,
        "idle_cpu_share": outcome.idle_cpu_share,
    }
    if outcome.entry.module == ".probes":
        return values | {"flops_per_second": outcome.value("flops_per_second")}
    nats = outcome.values[-1].get("nats", 0.0)
    if not math.isfinite(nats):  # half precision without loss scaling may diverge
        values["status"] = "ok, but its loss is not finite"
    rate = outcome.rate(shape.bytes_per_update)
    if "device_peak_bytes" in outcome.values[0]:
        values["device_peak_bytes"] = max(v["device_peak_bytes"] for v in outcome.values)
    return values | {
        "bytes_per_second": rate,
        "bytes_per_second_range": outcome.rates(shape.bytes_per_update),
        "ms_per_update": 1e3 / outcome.rate(),
        "flops_per_second": rate * shape.training_flops_per_byte,
        "nats": nats if math.isfinite(nats) else None,
    }


def measure(
    report: Report, heading: str, columns: Sequence[Column], entries: Sequence[tuple[Entry, Shape]]
) -> list[tuple[dict[str, Any], Outcome]]:
    """Runs competitors interleaved, each with the shape that it trains, and adds a table of them.

    Returns:
      The table's rows, each with the outcome that it was made from.
    """
    common.say(heading)
    table = report.table(heading, columns)
    outcomes = common.compete([entry for entry, _ in entries], report)
    shapes = [shape for _, shape in entries]
    for outcome, shape in zip(outcomes, shapes, strict=True):
        table.append(row(outcome, shape))
    return list(zip(table, outcomes, strict=True))


def relate(rows: Sequence[dict[str, Any]], key: str, name: str) -> None:
    """Adds to each row, as `name`, its figure divided by the first row's."""
    first = rows[0].get(key)
    for values in rows:
        if first and key in values:
            values[name] = values[key] / first


def compare(rows: list[dict[str, Any]], product: str) -> None:
    """Adds charlstm's speed relative to each competitor, and shares of the product rate."""
    by_name = {values["contestant"]: values for values in rows}
    ours = by_name.get(OURS, {}).get("bytes_per_second")
    reference = by_name.get(product, {}).get("flops_per_second")
    for values in rows:
        if ours and "bytes_per_second" in values:
            values["charlstm_is"] = ours / values["bytes_per_second"]
        if reference and "flops_per_second" in values:
            values["share_of_product_rate"] = values["flops_per_second"] / reference


def write(report: Report, key: str, label: str, *, say: bool = True) -> None:
    """Writes a report; its picture has, for each table, a bar for each row that has the figure."""

    def draw(figure: Any) -> None:
        tables = {
            heading: shown
            for heading, rows in report.tables.items()
            if (shown := [values for values in reversed(rows) if key in values])
        }
        axes = figure.subplots(max(1, len(tables)), 1, squeeze=False)[:, 0]
        figure.set_size_inches(9, 1 + sum(0.5 + 0.3 * len(rows) for rows in tables.values()))
        for axis, (heading, rows) in zip(axes, tables.items(), strict=False):
            names = [values["contestant"] for values in rows]
            colors = ["tab:orange" if name.startswith(OURS) else "tab:blue" for name in names]
            axis.barh(names, [values[key] for values in rows], color=colors)
            axis.set_title(heading, loc="left", fontsize=10)
            axis.set_xlabel(label)

    report.write(draw, say=say)
