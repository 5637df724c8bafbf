"""Shows the runs of REPRODUCTION.md side by side: figures, curves with n-gram levels, samples.

  python -m benchmarks.reproduction --runs=runs/seed_question,runs/seed_question_stateless
  python -m benchmarks.reproduction --runs=… --greedy=runs/seed_question --growth=runs/article

It trains nothing, and reads run folders as they are. An unfinished run is shown as far as it got;
its row says how many of the planned updates it made. An n-gram level is the score of a table of
byte counts on the same text.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import common, reporting
from benchmarks.competitors import versions_of
from benchmarks.reporting import Column
from charlstm.data.ngrams import NgramLevel, order_name
from charlstm.report.runs import Run, ngram_levels, readers
from charlstm.sampling.text import printable

_RUNS = flags.DEFINE_list("runs", [], "Run folders, of one corpus.")
_GREEDY = flags.DEFINE_list("greedy", [], "Run folders to decode greedily and at temperatures.")
_GROWTH = flags.DEFINE_list("growth", [], "Run folders whose samples over time are shown.")
_NUM_BYTES = flags.DEFINE_integer("num_bytes", 600, "Bytes of a sample.", 1)
_PROMPT = flags.DEFINE_string("prompt", "\n", "What samples go on from.")

TEMPERATURES = ("0", "0.5", "0.8", "1.0")
# A text is a loop if it ends with at least this many repetitions of the same bytes.
LOOP_TURNS = 3
# The article shows samples at these updates.
GROWTH_UPDATES = (100, 300, 500, 700, 1200, 2000)

# Levels closer to each other than this, in bits per byte, share a line in the picture.
NEAR_LINES = 0.05

_COLUMNS = (
    Column("run", "run"),
    Column("updates", "updates", lambda count: f"{count:,}"),
    Column("planned", "of", lambda count: f"{count:,}"),
    Column("bytes_read", "bytes read", reporting.short),
    Column("seconds", "seconds", reporting.number(0)),
    Column("bits_per_byte", "bits per byte", reporting.number(3)),
    Column("nats", "nats", reporting.number(3)),
    Column("accuracy", "accuracy", reporting.percent),
    Column("diagnoses", "diagnosis", ", ".join),
)
_SAMPLE_COLUMNS = (
    Column("temperature", "temperature"),
    Column("loop", "goes round in", lambda loop: f"{loop[1]} bytes, from byte {loop[0]} on"),
)


def main(argv: Sequence[str]) -> None:
    """Writes what the flags ask for."""
    del argv
    report = common.new_report("reproduction", "The question, the answer and the article")
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy")
    runs = [reader.read() for reader in readers(_RUNS.value)]
    rows = report.table("Runs, scored on the whole validation split", _COLUMNS)
    rows += [_row(run) for run in runs]
    texts: list[str] = []
    for folder in _GREEDY.value:
        name = Path(folder).name
        samples = report.table(f"{name}: greedy, and at temperatures", _SAMPLE_COLUMNS)
        for temperature in TEMPERATURES:
            common.say(f"sampling {folder} at temperature {temperature}")
            drawn = _sample(folder, temperature)
            samples.append({"temperature": temperature, "loop": loop_of(drawn)})
            texts.append(_quoted(f"{name}, temperature {temperature}", drawn))
    for reader in readers(_GROWTH.value):
        run = reader.read()
        kept = [(step, text) for step, text in run.samples if step in GROWTH_UPDATES]
        kept += [sample for sample in run.samples[-1:] if sample not in kept]
        texts += [_quoted(f"{run.name}, update {step:,}", text) for step, text in kept]
    report.notes += texts
    report.write(lambda figure: _draw(figure, runs))


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.name, "updates": run.step, "planned": run.num_updates}
    row["bytes_read"] = run.step * run.bytes_per_update
    found = [line["diagnosis"] for line in run.diagnoses]
    row["diagnoses"] = list(dict.fromkeys(found))
    if run.lines:
        row["seconds"] = max(run.values("seconds"), default=0.0)
    scored = run.last_validated()
    if scored:
        row |= {
            "bits_per_byte": scored["valid_bits_per_byte"],
            "nats": scored["valid_nats"],
            "accuracy": scored["valid_accuracy"],
        }
    return row


def _sample(folder: str, temperature: str) -> bytes:
    command = [sys.executable, "-m", "charlstm", "sample", f"--checkpoint={folder}"]
    command += ["--raw", "--noecho"]
    command += [f"--prompt={_PROMPT.value}", f"--temperature={temperature}"]
    command += [f"--num_bytes={_NUM_BYTES.value}"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def loop_of(text: bytes) -> tuple[int, int] | None:
    """Returns where a text begins to repeat itself and after how many bytes; None if it does not.

    It repeats itself with period p from byte s on if text[i] == text[i + p] for every i from s to
    the end. s is the smallest such byte, and at least `LOOP_TURNS` repetitions must be there.
    """
    for period in range(1, len(text) // LOOP_TURNS + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        if len(text) - start >= LOOP_TURNS * period:
            return start, period
    return None


def _quoted(heading: str, text: bytes) -> str:
    shown = printable(text).replace("```", "` ` `")
    return f"### {heading}\n\n```\n{shown.strip()}\n```"


def _draw(figure: Any, runs: Sequence[Run]) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    figure.set_size_inches(11, 5.5)
    by_bytes, by_seconds = figure.subplots(1, 2, sharey=True)
    for run in runs:
        lines = [line for line in run.lines if "valid_bits_per_byte" in line]
        if not lines:
            continue
        bits = [line["valid_bits_per_byte"] for line in lines]
        read = [line["step"] * run.bytes_per_update for line in lines]
        by_bytes.plot(read, bits, ".-", label=run.name)
        by_seconds.plot([line["seconds"] for line in lines], bits, ".-", label=run.name)
    for axis, title in ((by_bytes, "bytes read"), (by_seconds, "seconds of training")):
        axis.set(xlabel=title, xscale="log")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
        for height, names in _lines(_levels(runs)):
            axis.axhline(height, color="grey", linewidth=0.8, linestyle="--")
            where = 0.01, height
            axis.annotate(
                names,
                where,
                xycoords=("axes fraction", "data"),
                fontsize=7,
                color="grey",
                verticalalignment="bottom",
            )
    by_bytes.set_ylabel("validation bits per byte")
    by_seconds.legend(fontsize=7)


def _levels(runs: Sequence[Run]) -> list[NgramLevel]:
    """Returns the n-gram levels if all runs have the same ones, else none."""
    levels = [ngram_levels(run) for run in runs]
    return levels[0] if levels and all(other == levels[0] for other in levels) else []


def _lines(levels: Sequence[NgramLevel]) -> list[tuple[float, str]]:
    """Returns the height and the name of each line to draw; levels near each other share one."""
    lines: list[tuple[float, str]] = []
    for level in sorted(levels, key=lambda level: -level.bits_per_byte):
        name = order_name(level.order)
        if lines and lines[-1][0] - level.bits_per_byte < NEAR_LINES:
            lines[-1] = lines[-1][0], f"{lines[-1][1]}, {name}"
        else:
            lines.append((level.bits_per_byte, name))
    return lines


if __name__ == "__main__":
    app.run(main)
