"""The memory that an update needs of a device, known before the first one; and what would fit.

XLA plans a program's memory when it compiles it, so what does not fit is known before it is run.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from charlstm.errors import UserError
from charlstm.runtime import coordination, distributed
from charlstm.training.dispatch import CompiledDispatch
from charlstm.training.program import Program

if TYPE_CHECKING:
    from charlstm.training.run import Run

GIB = 2**30
# Compilations that the search for the largest batch may cost.
MAX_TRIES = 4


def needed_bytes(analysis: Any) -> int:
    """Returns the bytes of one device that a compiled program needs, by XLA's account."""
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )


def available_bytes() -> int | None:
    """Returns the bytes that one device has for this program; None if it does not say.

    An accelerator has a memory of its own; the CPU's devices share what the system has free.
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    if device.platform != "cpu" or "MemAvailable" not in fields:
        return None
    return int(fields["MemAvailable"][0]) * 1024 // jax.local_device_count()


def require_memory(run: "Run", dispatch: CompiledDispatch) -> int:
    """Returns the bytes that an update of a run needs of each device.

    Raises:
      UserError: a device has less; the largest number of streams that would fit is named.
    """

    def needed(num_streams: int) -> int:
        if num_streams == run.config.data.num_streams:
            return needed_bytes(dispatch.memory_analysis())
        config = run.config.replace({"data.num_streams": num_streams})
        smaller = Program(config, run.alphabet, run.mesh)
        streams = dataclasses.replace(run.streams, num_streams=num_streams)
        compiled = smaller.compile(streams, run.corpus.split("train"), smaller.abstract_state())
        return needed_bytes(compiled.memory_analysis())

    multiple = run.mesh.shape[distributed.DATA_AXIS]
    available = available_bytes() if coordination.is_single_process() else None
    return require_fit(run.config.data.num_streams, multiple, available, needed)


def describe(needed: int, available: int | None) -> str:
    """Returns a line such as `memory: 1.23 GiB of 78.00 GiB on each device`."""
    of = "" if available is None else f" of {available / GIB:.2f} GiB"
    return f"memory: {needed / GIB:.2f} GiB{of} on each device"


def require_fit(
    num_streams: int, multiple: int, available: int | None, needed: Callable[[int], int]
) -> int:
    """Makes sure that a batch fits into memory.

    Args:
      num_streams: B.
      multiple: of this the number of streams must be a multiple.
      available: bytes of one device; None: unknown, and anything is taken to fit.
      needed: the bytes that an update with so many streams needs of it, found by compiling it.

    Returns:
      The bytes needed.

    Raises:
      UserError: it does not fit; the largest number of streams that would is named.
    """
    wanted = needed(num_streams)
    if available is None or wanted <= available:
        return wanted
    largest = _largest_that_fits(num_streams, multiple, available, needed, wanted)
    cure = (
        f"the largest that fits is data.num_streams={largest}"
        if largest
        else "not even the smallest fits: choose a smaller model"
    )
    raise UserError(
        f"data.num_streams={num_streams} does not fit: an update needs {wanted / GIB:.2f} GiB of "
        f"each device, which has {available / GIB:.2f} GiB; {cure}, or set "
        "model.residuals=state, a shorter data.window_length, or mesh.shard=parameters"
    )


def _largest_that_fits(
    num_streams: int, multiple: int, available: int, needed: Callable[[int], int], wanted: int
) -> int:
    """Returns the largest multiple below `num_streams` that was seen to fit; 0 if none was.

    What an update needs grows about linearly with the streams: each guess is put on the line
    through the last two.
    """
    fits, fails = 0, num_streams
    known = {num_streams: wanted}
    guess = num_streams // 2 // multiple * multiple
    for _ in range(MAX_TRIES):
        guess = max(guess, multiple)
        if not fits < guess < fails:
            break
        known[guess] = needed(guess)
        if known[guess] <= available:
            fits = guess
        else:
            fails = guess
        (low, low_bytes), (high, high_bytes) = sorted(known.items())[:2]
        slope = max((high_bytes - low_bytes) / (high - low), 1.0)
        guess = int(low + (available - low_bytes) / slope) // multiple * multiple
    return fits
