"""Measures how fast this machine trains and samples, in about a minute.

  charlstm benchmark
  charlstm benchmark --shapes=3x1024-B64-T128,3x1024-B256-T128 --dtype=bfloat16 --json
  charlstm benchmark --seconds=300 --config.model.residuals=state

A shape is layers x hidden size - B streams - T time steps of an update, and - V symbols if they are
not all 256 bytes. Figures are medians of five windows, with the lowest and the highest. FLOP/s of
training are also shown as a share of the rate of large matrix products, measured in the same run.
The ceiling is that of `charlstm compile`, by the chip's data sheet. Nothing is written to disk.
"""

import json
import time
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from charlstm.benchmark import shapes
from charlstm.benchmark.fields import config_of, sizes_of
from charlstm.benchmark.shapes import Shape
from charlstm.benchmark.table import Column, markdown_table, number, percent, short, span
from charlstm.commands import _flags, _shared
from charlstm.config import field_types
from charlstm.errors import UserError

# Flags that stand for a field.
_DTYPE_FIELD, _RECURRENCE_FIELD = "model.compute_dtype", "model.recurrence"

_SHAPES = flags.DEFINE_list(
    "shapes", [], "What to train, as 3x512-B64-T64,3x1024-B64-T32-V84; by default what suits here."
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    typing.get_args(field_types()[_DTYPE_FIELD]),
    "Data type of the products; auto: what suits the device.",
)
_RECURRENCE = flags.DEFINE_enum(
    "recurrence", None, typing.get_args(field_types()[_RECURRENCE_FIELD]), "The time loop."
)
_SECONDS = _flags.define_number("seconds", 60.0, "About how long it all takes.", 1.0)
_JSON = flags.DEFINE_boolean("json", False, "Write one JSON object instead of a table.")

take_overrides = _shared.take_overrides

_COLUMNS = (
    Column("name", "work"),
    Column("bytes_per_second", "bytes/s", short),
    Column("bytes_per_second_range", "lowest – highest", span),
    Column("time", "time"),
    Column("flops_per_second", "FLOP/s", short),
    Column("share_of_product_rate", "of products", percent),
    Column("ceiling_bytes_per_second", "ceiling bytes/s"),
    Column("memory_bytes", "memory", short),
    Column("device_peak_bytes", "peak", short),
    Column("compile_seconds", "compile s", number(1)),
    Column("recurrence", "recurrence"),
    Column("compute_dtype", "dtype"),
)


def main(argv: Sequence[str]) -> None:
    """Measures as the flags say."""
    began = time.monotonic()
    _shared.no_more_arguments(argv)
    asked, fields = _asked_shapes(), _fields()
    known = asked or [*shapes.CPU_SHAPES, *shapes.ACCELERATOR_SHAPES]
    configs = {shape: config_of(shape, fields) for shape in known}
    # jax is loaded only once the flags are known good.
    from charlstm.benchmark import measuring

    measuring.set_up(configs.values())
    chosen = asked or measuring.standard_shapes()
    found = measuring.measure({shape: configs[shape] for shape in chosen}, began + _SECONDS.value)
    print(json.dumps(found) if _JSON.value else in_words(found))


def _asked_shapes() -> list[Shape]:
    try:
        found = list(dict.fromkeys(map(Shape.parse, _SHAPES.value)))
    except ValueError as error:
        raise UserError(f"--shapes: {error}") from error
    for shape in found:
        if max(shape.num_streams, shape.window_length) >= shapes.TEXT_BYTES:
            raise UserError(
                f"--shapes: {shape} has more streams or time steps than the {shapes.TEXT_BYTES:,} "
                "bytes of text that are trained on: make them fewer"
            )
    return found


def _fields() -> dict[str, Any]:
    """Returns the values of the configuration that the flags give, by address.

    Raises:
      UserError: a field is given twice, or would change what a shape says.
    """
    fields = dict(_shared.overrides)
    for address in (*sizes_of(shapes.CPU_SHAPES[0]), "model.parameter_budget", "data.corpus"):
        if address in fields:
            raise UserError(
                f"--config.{address} has no place in a benchmark: --shapes gives the sizes, and "
                "the text is made for them"
            )
    for address, flag in ((_DTYPE_FIELD, _DTYPE), (_RECURRENCE_FIELD, _RECURRENCE)):
        if flag.value is not None:
            if fields.get(address, flag.value) != flag.value:
                raise UserError(f"--{flag.name} and --config.{address} differ: give one of them")
            fields[address] = flag.value
    return fields


def in_words(found: dict[str, Any]) -> str:
    """Returns what was found as a headline, a Markdown table, and what was not reached."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    device = f"{found['num_devices']} × {found['device_kind']}"
    products = found["product_status"]
    if products == "ok":
        rate, rates = found["product_flops_per_second"], found["product_flops_per_second_range"]
        products = f"{short(rate)}FLOP/s ({span(rates)})"
    rows = [_training_row(row) for row in found["training"]]
    rows += [_sampling_row(row) for row in found["sampling"]]
    table = markdown_table(rows, _COLUMNS).splitlines()
    for place, row in enumerate(rows, 2):  # behind the heading and its line
        if row["status"] != "ok":
            table[place] = f"|{table[place].split('|')[1]}| {row['status']} |"
    lines = [
        f"{device}; {versions}; {found['date']}",
        f"large products, {found['compute_dtype']}: {products}",
        "",
        *table,
    ]
    if found["not_reached"]:
        missing = "; ".join(found["not_reached"])
        lines += ["", f"not reached, for want of --seconds: {missing}"]
    return "\n".join(lines)


def _training_row(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "name": f"training {row['shape']}"}
    if row["status"] == "ok":
        ceiling = row["ceiling_bytes_per_second"]
        shown["ceiling_bytes_per_second"] = "n/a" if ceiling is None else short(ceiling)
        shown["time"] = f"{row['ms_per_update']:,.2f} ms/update"
    return shown


def _sampling_row(row: dict[str, Any]) -> dict[str, Any]:
    shown = {**row, "name": f"sampling {row['model']}, batch {row['batch']}"}
    if row["status"] == "ok":
        shown["time"] = f"{row['us_per_step']:,.1f} µs/step"
    return shown
