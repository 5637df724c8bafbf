"""Renders the report, an HTML page with the results of one run or several."""

import os
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from charlstm.data.ngrams import describe_position, order_name
from charlstm.pages import html
from charlstm.report.curves import X_TITLES, all_curves
from charlstm.report.runs import Run, ngram_levels
from charlstm.sampling.text import printable
from charlstm.storage import paths
from charlstm.training.metrics_file import is_number

SCRIPTS = ("report.js",)
MOST_SAMPLES = 12  # of one run: the first, the last, and some in between


def render(runs: Sequence[Run], output: Path, refresh_seconds: int | None = None) -> str:
    """Renders the page.

    Args:
      runs: one run or several.
      output: the path of the page; links are relative to its folder.
      refresh_seconds: the interval at which an open page reloads; None for never.
    """
    curves = all_curves(runs)
    several = len(runs) > 1
    return html.render(
        "report.html",
        scripts=SCRIPTS,
        data={"charts": [curve["spec"] for curve in curves], "x_titles": X_TITLES},
        title=" · ".join(run.name for run in runs),
        refresh_seconds=refresh_seconds,
        charts=[(curve["title"], curve["unit"], curve["wide"]) for curve in curves],
        x_titles=X_TITLES,
        runs=[_summary(run, output, 3 if several else MOST_SAMPLES) for run in runs],
        differing=_differing(runs) if several else [],
        config=_config(runs[0].config),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _summary(run: Run, output: Path, most_samples: int) -> dict[str, Any]:
    best, last = run.best(), run.last_validated()
    seconds = run.values("seconds")
    rate = run.rate()
    num_parameters = run.about.get("num_parameters")
    return {
        "name": run.name,
        "folder": paths.shown(run.folder),
        "state": _state(run),
        "share": min(1.0, run.step / max(1, run.num_updates)),
        "step": run.step,
        "num_updates": run.num_updates,
        "best": best,
        "last": last,
        "position": _position(run, best),
        "time": tqdm.format_interval(round(seconds[-1])) if seconds else "n/a",
        "rate": f"{tqdm.format_sizeof(rate)}B/s" if rate else "n/a",
        "bytes_read": tqdm.format_sizeof(run.step * run.bytes_per_update) + "B",
        "levels": _evaluation(run, best, last),
        "lost": _lost(run),
        "goodput": run.last("goodput"),
        "diagnoses": _diagnoses(run),
        "samples": _samples(run, most_samples),
        "corpus": _corpus(run),
        "changes": _changes(run),
        "num_parameters": num_parameters if is_number(num_parameters) else None,
        "environment": _environment(run),
        "profiles": [_link(path, output) for path in run.profiles],
    }


def _state(run: Run) -> str:
    if run.is_finished:
        return "finished"
    return "running or stopped" if run.lines else "no figures yet"


def _position(run: Run, best: dict[str, Any] | None) -> str:
    """Says in words where the best score is among the n-gram levels."""
    levels = ngram_levels(run)
    return describe_position(best["valid_bits_per_byte"], levels) if best and levels else ""


def _evaluation(
    run: Run, best: dict[str, Any] | None, last: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Returns the rows of the final evaluation, the worst first."""
    rows = [
        {
            "name": order_name(level.order),
            "bits": level.bits_per_byte,
            "nats": level.nats,
            "accuracy": level.accuracy,
            "is_model": False,
        }
        for level in ngram_levels(run)
    ]
    scored = {line["step"]: (what, line) for what, line in (("last", last), ("best", best)) if line}
    for step, (what, line) in scored.items():
        rows.append(
            {
                "name": f"charlstm, {what}, update {step:,}",
                "bits": line["valid_bits_per_byte"],
                "nats": line.get("valid_nats"),
                "accuracy": line.get("valid_accuracy"),
                "is_model": True,
            }
        )
    return sorted(rows, key=lambda row: -row["bits"])


def _lost(run: Run) -> list[tuple[str, float]]:
    """Returns the seconds not spent training by cause, in descending order; empty if unknown."""
    lost = run.last("lost_seconds")
    if not isinstance(lost, dict):
        return []
    found = [(str(cause), float(seconds)) for cause, seconds in lost.items() if is_number(seconds)]
    return sorted(found, key=lambda cause: -cause[1])


def _diagnoses(run: Run) -> list[tuple[int, str, str]]:
    """Returns the diagnoses of the run: update, code, message."""
    return [
        (line["step"], str(line["diagnosis"]), str(line.get("message", "")))
        for line in run.diagnoses
    ]


def _changes(run: Run) -> list[tuple[int, str, str, str]]:
    """Returns what the run's configuration was changed in: updates before, field, from, to."""
    found = run.about.get("changes")
    return [
        (change["updates"], *(str(change.get(key)) for key in ("field", "from", "to")))
        for change in (found if isinstance(found, list) else [])
        if isinstance(change, dict) and is_number(change.get("updates"))
    ]


def _samples(run: Run, most: int) -> list[dict[str, Any]]:
    samples = run.samples
    if len(samples) > most:  # evenly spaced, with the first and the last
        samples = [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]
    scores = {line["step"]: line.get("valid_bits_per_byte") for line in run.lines}
    return [
        {"step": step, "text": printable(text), "bits": scores.get(step)} for step, text in samples
    ]


def _corpus(run: Run) -> str:
    """Returns the name and the size of the text; empty if unknown."""
    corpus = run.about.get("corpus")
    if not isinstance(corpus, dict) or not is_number(corpus.get("num_bytes")):
        return ""
    return f"{corpus.get('name')}, {corpus['num_bytes']:,} bytes"


def _environment(run: Run) -> list[tuple[str, str]]:
    found = run.about.get("environment")
    if not isinstance(found, dict):
        return []
    return [(str(name), str(value)) for name, value in found.items()]


def _config(config: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    sections: dict[str, list[tuple[str, Any]]] = {}
    for address, value in config.items():
        section, _, name = address.partition(".")
        sections.setdefault(section, []).append((name, value))
    return sections


def _differing(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Returns the fields in which the runs differ, and their values."""
    addresses = dict.fromkeys(address for run in runs for address in run.config)
    rows = [(address, [run.config.get(address, "—") for run in runs]) for address in addresses]
    return [(address, values) for address, values in rows if any(v != values[0] for v in values)]


def _link(path: Path, output: Path) -> str:
    """Returns a link to a path from the folder of the page."""
    try:
        relative = path.absolute().relative_to(output.absolute().parent)
        return urllib.parse.quote(os.fsencode(relative.as_posix()))
    except ValueError:
        return path.absolute().as_uri()
