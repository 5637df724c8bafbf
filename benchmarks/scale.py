"""Compiles training for pods and clusters that are not there: what fits, and what links leave.

  python -m benchmarks.scale --out=benchmarks/results
  python -m benchmarks.scale --chips=v5e,h100 --models=3x1024

Nothing is measured: memory and collectives are the compiler's, the ceilings follow from them and
from the chips' data sheets. What is in OUT/scale.json already, by the same versions, is not
compiled again. It needs the extras compile-tpu and compile-gpu.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags

import charlstm
from benchmarks import common, reporting
from benchmarks.interleaved import ROOT
from benchmarks.reporting import Column

_MODELS = flags.DEFINE_list("models", ["3x1024", "3x4096", "4x8192"], "Layers x hidden size.")
_CHIPS = flags.DEFINE_list("chips", ["v5e", "v5p", "v6e", "h100"], "Chips to compile for.")
_LIMIT = flags.DEFINE_float("limit", 900.0, "Seconds that one compilation may take.")
WINDOW = 128
TEXT_BYTES = 10**8


class Layout(NamedTuple):
    """Describes how a model is laid out over many devices."""

    streams_per_device: int
    model: int  # devices that share a layer, at most
    shard: str  # `mesh.shard`


# Large layers are shared by devices, and what the optimizer keeps is split over all.
LAYOUTS = {
    "3x1024": Layout(256, 1, "nothing"),
    "3x4096": Layout(64, 4, "optimizer"),
    "4x8192": Layout(32, 8, "parameters"),
}
TOPOLOGIES = {
    "v5e": ["1x1", "2x2", "4x4", "16x16"],
    "v5p": ["2x2x1", "4x4x4", "8x8x8"],
    "v6e": ["1x1", "4x4", "16x16"],
    "h100": ["1", "8", "8x8"],
}

_COLUMNS = (
    Column("topology", "topology"),
    Column("devices", "devices"),
    Column("mesh", "data × model"),
    Column("num_streams", "streams", reporting.number(0)),
    Column("fits", "fits", lambda fits: "yes" if fits else "no"),
    Column("total_bytes", "memory of a device", reporting.short),
    Column("activation_bytes", "of it activations", reporting.short),
    Column("collectives", "collectives of an update"),
    Column("sent_bytes", "their bytes", reporting.short),
    Column("ceiling", "ceiling, bytes/s", reporting.short),
    Column("limit", "set by"),
    Column("device_ms", "products or memory, ms", reporting.number(1)),
    Column("links_ms", "links, ms", reporting.number(2)),
    Column("share_left", "share that links leave", reporting.percent),
    Column("status", "status"),
)


def main(argv: Sequence[str]) -> None:
    """Compiles every case, and writes the report after each."""
    del argv
    report = common.new_report("scale", "What pods and clusters would do, by compilation")
    report.versions = {"charlstm": charlstm.__version__, "jax": jax.__version__}
    known = _known()
    report.notes.append(
        "Nothing here was measured. A ceiling is what the data sheets' rates of products, memory "
        "and links allow, all at the same time. Milliseconds are of an update, by the same rates. "
        "The share that links leave is that of an update whose products wait for all collectives."
    )
    for model in _MODELS.value:
        rows = report.table(f"{model}, bfloat16, windows of {WINDOW}", _COLUMNS)
        for topology in _topologies():
            common.say(f"{model} on {topology}")
            row = known.get((model, topology)) or _compile(model, topology)
            rows.append(row)
            if row["status"] != "ok":
                common.say(row["status"])
            report.write(say=False)
    report.write()


def _topologies() -> Iterator[str]:
    for chip in _CHIPS.value:
        for shape in TOPOLOGIES[chip]:
            yield f"{chip}:{shape}"


def _known() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the rows of an earlier call with the same versions, by model and topology."""
    path = Path(common.OUT.value) / "scale.json"
    if not path.exists():
        return {}
    values = json.loads(path.read_text())
    if values["versions"].get("jax") != jax.__version__:
        return {}
    return {
        (heading.partition(",")[0], row["topology"]): row
        for heading, rows in values["tables"].items()
        for row in rows
        if row["status"] == "ok"
    }


def _compile(model: str, topology: str) -> dict[str, Any]:
    """Returns the row of one case, which `charlstm compile` makes in a process of its own."""
    layout = LAYOUTS[model]
    layers, hidden = model.split("x")
    devices = _num_devices(topology)
    shared = min(layout.model, devices)
    fields = {
        "model.num_layers": layers,
        "model.hidden_size": hidden,
        "model.compute_dtype": "bfloat16",
        "data.num_streams": layout.streams_per_device * devices,
        "data.window_length": WINDOW,
        "mesh.model": shared,
        "mesh.shard": layout.shard,
    }
    command = [sys.executable, "-m", "charlstm", "compile", f"--topology={topology}", "--json"]
    command += ["--nolargest", f"--text_bytes={TEXT_BYTES}", "--num_symbols=256"]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    row: dict[str, Any] = {"topology": topology, "devices": devices, "status": "ok"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT.value, check=False
        )
    except subprocess.TimeoutExpired:
        return row | {"status": f"not compiled in {_LIMIT.value:.0f} s"}
    if done.returncode:
        return row | {"status": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
    return row | _figures(json.loads(done.stdout.splitlines()[-1]))


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    seconds = found["ceiling_seconds"]
    alone = max(seconds["products"], seconds["memory"])
    return {
        "devices": found["devices"],
        "mesh": f"{found['mesh']['data']} × {found['mesh']['model']}",
        "num_streams": found["num_streams"],
        "fits": found["fits"],
        "total_bytes": found["bytes_per_device"]["total"],
        "activation_bytes": found["bytes_per_device"]["activations"],
        "collectives": _in_words(found["collectives"]),
        "sent_bytes": sum(each["bytes"] for each in found["collectives"]),
        "ceiling": found["ceiling_bytes_per_second"],
        "limit": found["ceiling_limit"],
        "device_ms": 1e3 * alone,
        "links_ms": 1e3 * seconds["links"],
        "share_left": alone / (alone + seconds["links"]),
        "compile_seconds": found["compile_seconds"],
    }


def _in_words(collectives: list[dict[str, Any]]) -> str:
    """Returns the numbers of collectives by kind, those in the time loop at the end."""
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for each in collectives:
        counts[each["in_time_loop"]][each["kind"]] += each["count"]
    outside, inside = (
        ", ".join(f"{count} {kind}" for kind, count in counts[place].items()) for place in counts
    )
    return "; in the time loop ".join(filter(None, [outside, inside])) or "none"


def _num_devices(topology: str) -> int:
    count = 1
    for size in topology.partition(":")[2].split("x"):
        count *= int(size)
    return count


if __name__ == "__main__":
    app.run(main)
