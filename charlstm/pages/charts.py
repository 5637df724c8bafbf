"""Makes charts as Vega-Lite specifications in the colours of their page.

Colours are variables of the style sheet, so a chart follows the page's light, dark or print style.
"""

from collections.abc import Sequence
from typing import Any

COLOURS = [f"var(--series-{number})" for number in range(1, 9)]

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "tickCount": 5,
    },
    "header": {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 12},
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "orient": "top",
        "title": None,
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "columns": 4,
        "labelLimit": 240,
    },
    "range": {"category": COLOURS},
}


def saturation(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Charts how often the gates of a layer's cells are saturated, one point per cell and gate.

    Args:
      points: each with `gate`, `cell`, `name`, `left` and `right` (fractions of the bytes).
    """

    def share(field: str, title: str) -> dict[str, Any]:
        return {
            "field": field,
            "type": "quantitative",
            "title": title,
            "scale": {"domain": [0, 1]},
            "axis": {"format": "%", "values": [0, 0.25, 0.5, 0.75, 1]},
        }

    sorted_gates = list(dict.fromkeys(point["gate"] for point in points))
    return {
        "data": {"values": list(points)},
        "config": CONFIG,
        "columns": 3,
        "facet": {"field": "gate", "type": "nominal", "title": None, "sort": sorted_gates},
        "spec": {
            "width": 220,
            "height": 220,
            "layer": [
                {
                    "data": {"values": [{"x": 0, "y": 1}, {"x": 1, "y": 0}]},
                    "mark": {"type": "line", "stroke": "var(--line)", "strokeDash": [4, 4]},
                    "encoding": {
                        "x": {"field": "x", "type": "quantitative"},
                        "y": {"field": "y", "type": "quantitative"},
                    },
                },
                {
                    "mark": {
                        "type": "circle",
                        "color": "var(--series-1)",
                        "opacity": 0.55,
                        "size": 40,
                        "cursor": "pointer",
                    },
                    "encoding": {
                        "x": share("left", "left-saturated (below 0.1)"),
                        "y": share("right", "right-saturated (above 0.9)"),
                        "tooltip": [
                            {"field": "name", "title": "cell"},
                            {"field": "left", "format": ".1%", "title": "left"},
                            {"field": "right", "format": ".1%", "title": "right"},
                        ],
                    },
                },
            ],
        },
    }
