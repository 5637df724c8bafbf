"""Makes chart specifications for the curves of one run or several."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from charlstm.data.ngrams import order_name
from charlstm.pages.charts import COLOURS, CONFIG
from charlstm.report.runs import Run, ngram_levels
from charlstm.training.metrics_file import is_number

MOST_POINTS = 400  # in a series; a longer one averages neighbours
# A series with at most this many points shows each of them.
FEW_POINTS = 12
DEFAULT_FORM = ",.4~g"  # a number format of d3
# The fraction of a chart's height that a line of text takes.
LABEL_SHARE = 0.055
X_TITLES = {"step": "updates", "seconds": "seconds", "bytes": "bytes read"}

Series = tuple[str, list[dict[str, float]]]  # name; points with X_TITLES' keys and `value`


def all_curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns `title`, `unit`, `spec` and `wide` of every chart that the runs have figures for."""
    several = len(runs) > 1
    charts = []

    def add(title: str, series: list[Series], *, wide: bool = False, **how: Any) -> None:
        if any(points for _, points in series):
            unit = how.pop("unit", "")
            spec = _chart(series, unit=unit, height=300 if wide else 190, **how)
            charts.append({"title": title, "unit": unit, "wide": wide, "spec": spec})

    levels = _levels(runs)
    if several:
        bits = [(run.name, _points(run, "valid_bits_per_byte")) for run in runs]
        add("Validation", bits, wide=True, unit="bits per byte", levels=levels)
        train = [(run.name, _points(run, "train_bits_per_byte")) for run in runs]
        add("Training", train, unit="bits per byte")
    else:
        add(
            "Bits per byte",
            _train_and_valid(runs[0], "bits_per_byte"),
            wide=True,
            levels=levels,
        )
        add("Loss", _loss(runs[0]), unit="nats per byte")
    accuracy = "valid_accuracy" if several else "accuracy"
    if several:
        add("Accuracy on validation", [(r.name, _points(r, accuracy)) for r in runs], form=".1%")
    else:
        add("Accuracy", _train_and_valid(runs[0], accuracy), form=".1%", unit="share of bytes")
    for title, key, how in (
        ("Throughput", "bytes_per_second", {"unit": "bytes per second", "zero": True}),
        ("Goodput", "goodput", {"unit": "share of the time spent training", "form": ".0%"}),
        ("Learning rate", "learning_rate", {"form": ".2~e", "zero": True}),
        ("Gradient norm", "gradient_norm", {"log": True, "unit": "before clipping"}),
    ):
        add(title, [(run.name, _points(run, key)) for run in runs], **how)
    if any(max(run.values("skipped_updates"), default=0) > 0 for run in runs):
        skipped = [(run.name, _points(run, "skipped_updates")) for run in runs]
        add("Updates skipped", skipped, zero=True)
    return charts


def _train_and_valid(run: Run, key: str) -> list[Series]:
    return [
        ("training", _points(run, f"train_{key}")),
        ("validation", _points(run, f"valid_{key}")),
    ]


def _loss(run: Run) -> list[Series]:
    def nats(bits: float) -> float:
        return bits * math.log(2)

    return [
        ("training", _points(run, "train_bits_per_byte", nats)),
        ("validation", _points(run, "valid_nats")),
    ]


def _points(
    run: Run, key: str, convert: Callable[[float], float] = float
) -> list[dict[str, float]]:
    """Returns the points of a key, with neighbours averaged if there are too many."""
    found = [
        {
            "step": line["step"],
            "seconds": line.get("seconds", 0),
            "bytes": line["step"] * run.bytes_per_update,
            "value": convert(line[key]),
        }
        for line in run.lines
        if is_number(line.get(key)) and is_number(line.get("seconds", 0))
    ]
    size = -(-len(found) // MOST_POINTS)
    return [_mean(found[begin : begin + size]) for begin in range(0, len(found), max(1, size))]


def _mean(points: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of neighbouring points; a single point stays as it is."""
    return {
        key: float(f"{sum(point[key] for point in points) / len(points):.6g}") for key in points[0]
    }


def _levels(runs: Sequence[Run]) -> list[tuple[float, str]]:
    """Returns the n-gram levels in bits per byte and their names, if all runs have the same."""
    levels = [ngram_levels(run) for run in runs]
    if any(other != levels[0] for other in levels[1:]):
        return []
    return [(level.bits_per_byte, order_name(level.order)) for level in levels[0]]


def _chart(
    series: list[Series],
    *,
    unit: str,
    height: int,
    form: str = DEFAULT_FORM,
    zero: bool = False,
    log: bool = False,
    levels: Sequence[tuple[float, str]] = (),
) -> dict[str, Any]:
    names = [name for name, _ in series]
    values = [{"series": name, **point} for name, points in series for point in points]
    heights = [point["value"] for _, points in series for point in points]
    few = [name for name, points in series if 0 < len(points) <= FEW_POINTS]
    scale: dict[str, Any] = {"zero": zero, "nice": True}
    if log and min(heights) > 0:
        scale = {"type": "log", "nice": False}
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": [COLOURS[i % len(COLOURS)] for i in range(len(names))]},
        "legend": {} if len(names) > 1 else None,
    }
    x = {"field": "x", "type": "quantitative", "title": X_TITLES["step"], "scale": {"zero": True}}
    x["axis"] = {"format": "~s", "grid": False}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": scale}
    y["axis"] = {"format": ".2~g" if log else "~s" if form == DEFAULT_FORM else form}
    tooltip = [
        {"field": "series", "title": "series"},
        {"field": "step", "title": "update", "format": ","},
        {"field": "value", "title": unit or "value", "format": form},
    ]
    layers: list[dict[str, Any]] = []
    if levels:
        heights += [bits for bits, _ in levels]
        layers += _level_layers(levels, LABEL_SHARE * (max(heights) - min(heights)))
    encoding = {"x": x, "y": y, "color": colour}
    line = {"type": "line", "strokeWidth": 1.8, "clip": True}
    layers += [{"mark": line, "encoding": encoding}, _pointed_layer(encoding, tooltip)]
    if few:
        layers.append(
            {
                "transform": [{"filter": {"field": "series", "oneOf": few}}],
                "mark": {"type": "point", "filled": True, "size": 26, "clip": True},
                "encoding": encoding,
            }
        )
    return {
        "data": {"values": values},
        "config": CONFIG,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "layer": layers,
    }


def _pointed_layer(encoding: dict[str, Any], tooltip: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a point that appears where the pointer is, with its values."""
    select = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    shown = {"param": "pointed", "empty": False, "value": 1}
    return {
        "params": [{"name": "pointed", "select": select}],
        "mark": {"type": "point", "filled": True, "size": 70, "clip": True},
        "encoding": encoding | {"opacity": {"condition": shown, "value": 0}, "tooltip": tooltip},
    }


def _level_layers(levels: Sequence[tuple[float, str]], room: float) -> list[dict[str, Any]]:
    """Returns dashed lines and labels; lines with less than `room` between them share a label."""
    groups: list[list[tuple[float, str]]] = []
    for level in sorted(levels, reverse=True):
        if groups and groups[-1][0][0] - level[0] < room:
            groups[-1].append(level)
        else:
            groups.append([level])
    labels = [
        {
            "bits": group[0][0],
            "label": ", ".join(f"{name} {bits:.2f}" for bits, name in group),
        }
        for group in groups
    ]
    y = {"field": "bits", "type": "quantitative"}
    rule = {"type": "rule", "stroke": "var(--muted)", "strokeDash": [5, 4], "opacity": 0.7}
    text = {
        "type": "text",
        "align": "right",
        "baseline": "bottom",
        "dy": -2,
        "fontSize": 11,
        "fill": "var(--muted)",
    }
    return [
        {
            "data": {"values": [{"bits": bits} for bits, _ in levels]},
            "mark": rule,
            "encoding": {"y": y},
        },
        {
            "data": {"values": labels},
            "mark": text,
            "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "label"}},
        },
    ]
