"""Compiles the update of a configuration for chips that need not be there, and says if it fits.

  charlstm compile --config=quickstart --topology=v5e:2x2
  charlstm compile --config=shakespeare --topology=h100:8 --config.data.num_streams=2048 --json
  charlstm compile --topology=v5e:1x1 --text_bytes=1000000000 --num_symbols=200

Shows memory by kind and the largest batch that fits, collectives, kernels, and the ceiling of the
speed. Nothing is run or measured. What a TPU keeps in VMEM is not counted as memory. Without
--topology it compiles for the devices of this machine. The compilers of TPUs and NVIDIA GPUs run on
any machine: pip install 'charlstm[compile-tpu]' or 'charlstm[compile-gpu]'.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from charlstm.commands import _flags, _shared
from charlstm.commands._devices import set_up_devices
from charlstm.config import Config, load_config
from charlstm.errors import UserError

if TYPE_CHECKING:
    from charlstm.compilation.compiling import Report

_CONFIG = _flags.define_path("config", "quickstart", "Name or file of a configuration.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "CHIP:SHAPE, such as v5e:2x2, or h100:8x4 for 8 processes of 4 GPUs."
)
_TEXT_BYTES = flags.DEFINE_integer(
    "text_bytes", None, "Instead of opening the corpus: the bytes of text to train on.", 2
)
_NUM_SYMBOLS = flags.DEFINE_integer(
    "num_symbols", None, "Instead of opening the corpus: the symbols of its alphabet.", 1, 256
)
_LARGEST = flags.DEFINE_boolean(
    "largest", True, "Find the largest data.num_streams that fits, by up to four compilations."
)
_JSON = flags.DEFINE_boolean("json", False, "Write one JSON object instead of text.")

take_overrides = _shared.take_overrides


def main(argv: Sequence[str]) -> None:
    """Compiles as the flags say."""
    _shared.no_more_arguments(argv)
    config = load_config(_CONFIG.value).replace(dict(_shared.overrides))
    # jax is loaded only once the flags are known good.
    from charlstm.compilation.compiling import Machine, compile_for

    if _TOPOLOGY.value is not None:
        machine = Machine.named(_TOPOLOGY.value)
    else:
        set_up_devices(config)
        machine = Machine.here()
    report = compile_for(_subject(config), machine, find_largest=_LARGEST.value)
    print(json.dumps(to_json(report)) if _JSON.value else in_words(report))


def _subject(config: Config) -> Any:
    from charlstm.compilation.compiling import Subject
    from charlstm.data.corpus import Alphabet
    from charlstm.model.size import within_budget
    from charlstm.training.input import load_shared_corpus

    given = (_TEXT_BYTES.value, _NUM_SYMBOLS.value)
    if given == (None, None):
        corpus = load_shared_corpus(config.data)
        alphabet = Alphabet.of(config.model.alphabet, corpus.data)
        num_bytes = len(corpus.split("train"))
    elif None in given and config.model.alphabet == "corpus":
        raise UserError("--text_bytes and --num_symbols stand for a corpus together: give both")
    else:
        num_bytes = _TEXT_BYTES.value or 2**20
        if config.model.alphabet == "bytes":
            alphabet = Alphabet("bytes", bytes(range(256)))
        else:
            alphabet = Alphabet("corpus", bytes(range(_NUM_SYMBOLS.value)))
    return Subject(within_budget(config, alphabet.size), alphabet, num_bytes)


def to_json(report: "Report") -> dict[str, Any]:
    """Returns a report as JSON values."""
    machine, ceiling, kernels = report.machine, report.ceiling, report.kernels
    return {
        "topology": machine.name,
        "chip": machine.devices[0].device_kind,
        "devices": len(machine.devices),
        "mesh": {"data": report.mesh_shape[0], "model": report.mesh_shape[1]},
        "recurrence": report.network.describe(),
        "compute_dtype": report.network.compute.dtype.name,
        "num_streams": report.num_streams,
        "fits": report.fits,
        "available_bytes": machine.available_bytes,
        "bytes_per_device": report.memory.by_kind() | {"total": report.memory.total},
        "largest_num_streams": report.largest_num_streams,
        "collectives": [
            {
                "kind": each.kind,
                "axis": each.axis,
                "count": each.count,
                "bytes": each.bytes,
                "in_time_loop": each.in_time_loop,
            }
            for each in report.collectives
        ],
        "kernels_per_time_step": report.kernels_per_time_step,
        "kernels_per_update": None if kernels is None else kernels.total,
        "own_kernel": None if report.on_chip is None else report.on_chip._asdict(),
        "flops_per_byte": report.flops_per_byte,
        "memory_bytes_per_byte": report.memory_bytes_per_byte,
        "ceiling_bytes_per_second": None if ceiling is None else ceiling.bytes_per_second,
        "ceiling_seconds": None
        if ceiling is None
        else {name: getattr(ceiling, name) for name in ("products", "memory", "links")},
        "ceiling_limit": None if ceiling is None else ceiling.limit,
        "compile_seconds": report.compile_seconds,
    }


def in_words(report: "Report") -> str:
    """Returns a report as lines of text."""
    from charlstm.training.memory import readable

    machine, shape = report.machine, report.mesh_shape
    kind = machine.devices[0].device_kind
    lines = [
        f"{machine.name}: {len(machine.devices)} × {kind}, data × model = {shape[0]} × {shape[1]}",
        f"{report.network.describe()}, {report.network.compute.dtype.name}, {report.num_streams} "
        f"streams; compiled in {report.compile_seconds:.1f} s",
        report.memory.describe(machine.available_bytes),
    ]
    if report.fits is not None:
        lines.append("it fits" if report.fits else "IT DOES NOT FIT")
    if report.largest_num_streams is not None:
        lines[-1] += f"; the largest that fits is data.num_streams={report.largest_num_streams}"
    if report.collectives:
        lines.append("collectives of an update:")
    for each in report.collectives:
        where = ", in the time loop" if each.in_time_loop else ""
        lines.append(
            f"  {each.count} × {each.kind} over {each.axis}, {readable(each.bytes)}{where}"
        )
    if report.kernels is not None and report.kernels_per_time_step is not None:
        steps = report.kernels_per_time_step
        lines.append(
            f"kernels: {report.kernels.total:,} an update; for each time step and layer "
            f"{steps['forward']:.2f} forward, {steps['backward']:.2f} backward"
        )
    if report.on_chip is not None:
        time_steps, streams, needed, limit = report.on_chip
        lines.append(
            f"kernel of {report.network.recurrence}: blocks of {time_steps} time steps × {streams} "
            f"streams, {needed / 2**10:,.0f} of the {limit / 2**10:,.0f} KiB that it may take on "
            "the chip"
        )
    lines.append(
        f"for each byte of text: {report.flops_per_byte / 1e6:,.1f} MFLOP, "
        f"{report.memory_bytes_per_byte / 1e3:,.1f} kB to and from memory"
    )
    if report.ceiling is not None:
        lines.append(
            f"ceiling: {report.ceiling.bytes_per_second / 1e6:,.2f} MB/s of text, set by "
            f"{report.ceiling.limit}; by data sheets, not measured"
        )
    return "\n".join(lines)
