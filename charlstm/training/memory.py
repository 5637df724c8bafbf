"""The memory that an update needs of a device, known before the first one; and what would fit.

XLA plans a program's memory when it compiles it, so what does not fit is known before it is run.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from charlstm.data.streams import Streams
from charlstm.errors import UserError
from charlstm.runtime import coordination, meshes
from charlstm.training.dispatch import CompiledDispatch, max_updates_in
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

    multiple = run.mesh.shape[meshes.DATA_AXIS]
    available = available_bytes() if coordination.is_single_process() else None
    return require_fit(run.config.data.num_streams, multiple, available, needed)


@dataclasses.dataclass(frozen=True)
class MemoryTable:
    """The bytes of one device that a dispatch needs, by what they hold.

    Attributes:
      parameters: as they are stored.
      optimizer: its state, and the average of the parameters if there is one.
      carry: the states of the streams.
      text: the training split, or the windows of a dispatch.
      activations: what the forward pass keeps for the gradient.
      scratch: everything else that XLA plans: gradients, casts, logits, buffers of collectives.
    """

    parameters: int
    optimizer: int
    carry: int
    text: int
    activations: int
    scratch: int

    @classmethod
    def of(
        cls,
        program: Program,
        streams: Streams,
        analysis: Any,
        *,
        resident: bool,
    ) -> "MemoryTable":
        """Returns the table of a compiled dispatch.

        Args:
          program, streams: what was compiled.
          analysis: XLA's account of it.
          resident: True if the text is on every device.
        """
        state = program.abstract_state()
        parameters = bytes_on_a_device(state.params, program.mesh)
        optimizer = bytes_on_a_device((state.opt_state, state.average), program.mesh)
        carry = bytes_on_a_device(state.carry, program.mesh)
        windows = max_updates_in(False) * (streams.window_length + 1) * streams.num_streams
        shared = program.mesh.shape[meshes.DATA_AXIS]
        text = streams.num_bytes if resident else windows // shared
        rest = max(0, needed_bytes(analysis) - parameters - optimizer - carry - text)
        # XLA may keep less than was asked for: it computes again what costs little.
        activations = min(rest, bytes_on_a_device(program.kept_for_the_gradient(), program.mesh))
        return cls(parameters, optimizer, carry, text, activations, rest - activations)

    @property
    def total(self) -> int:
        """Returns the sum of all kinds."""
        return sum(dataclasses.astuple(self))

    def describe(self, available: int | None) -> str:
        """Returns two lines: the sum beside what there is, and the kinds."""
        of = "" if available is None else f" of {available / GIB:.2f} GiB"
        kinds = ", ".join(f"{name} {readable(size)}" for name, size in self.by_kind().items())
        return f"memory: {readable(self.total)}{of} on each device\n  {kinds}"

    def by_kind(self) -> dict[str, int]:
        """Returns the bytes by kind."""
        return dataclasses.asdict(self)


def readable(size: float) -> str:
    """Returns a number of bytes in GiB, or in MiB if it is below one."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"


def bytes_on_a_device(tree: Any, mesh: jax.sharding.Mesh) -> int:
    """Returns the bytes that a tree of arrays, or of their shapes, has on one device of a mesh."""

    def size(leaf: Any) -> int:
        spec = jax.P() if leaf.sharding is None else leaf.sharding.spec
        shape = jax.NamedSharding(mesh, spec).shard_shape(leaf.shape)
        item = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize
        return math.prod(shape) * int(item)

    return sum(size(leaf) for leaf in jax.tree.leaves(tree))


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


def largest_batch(
    num_streams: int,
    multiple: int,
    most: int,
    available: int,
    table: MemoryTable,
    kept: int,
    needed: Callable[[int], int | None],
) -> int:
    """Returns the largest number of streams that was seen to fit; 0 if none was.

    Args:
      num_streams: B, of which the table is.
      multiple: of this the number of streams must be a multiple.
      most: no more streams than this are tried.
      available: bytes of one device.
      table: what B streams need.
      kept: bytes of one device that B streams keep for the gradient, by arithmetic. A small batch
        needs less: a TPU holds what is short-lived in memory on the chip.
      needed: the bytes that another number of streams needs; None if it does not compile.
    """
    fixed = table.parameters + table.optimizer + table.text
    per_stream = max(1.0, (table.total - fixed) / num_streams, (table.carry + kept) / num_streams)
    fits, fails = (num_streams, most + 1) if table.total <= available else (0, num_streams)
    return _search(
        fits, fails, multiple, available, {num_streams: table.total}, needed,
        guess=int((available - fixed) / per_stream),
    )  # fmt: skip


def _largest_that_fits(
    num_streams: int, multiple: int, available: int, needed: Callable[[int], int], wanted: int
) -> int:
    """Returns the largest multiple below `num_streams` that was seen to fit; 0 if none was."""
    return _search(
        0, num_streams, multiple, available, {num_streams: wanted}, needed, guess=num_streams // 2
    )


def _whole_tiles(num_streams: int, devices: int) -> int:
    """Returns a number of streams, rounded down to one that compiles soon; at least one each.

    A TPU's tiles have 8 rows of 128. With a large number of streams that fills no whole tiles,
    libtpu compiles for minutes instead of seconds (0.0.42: 104,002 against 104,000).
    """
    each = num_streams // devices
    tile = 128 if each >= 1024 else 1
    return max(each // tile * tile, 1) * devices


def _search(
    fits: int,
    fails: int,
    multiple: int,
    available: int,
    known: dict[int, int],
    needed: Callable[[int], int | None],
    *,
    guess: int,
) -> int:
    """Narrows down the largest multiple that fits, between one that does and one that does not.

    What an update needs grows about linearly with the streams: each guess is put on the line
    through two known ones.
    """
    for _ in range(MAX_TRIES):
        guess = _whole_tiles(min(guess, fails - 1), multiple)
        if not fits < guess < fails:
            break
        size = needed(guess)
        if size is not None and size <= available:
            fits = guess
        else:
            fails = guess
        if size is None:
            guess = (fits + fails) // 2
            continue
        known[guess] = size
        (low, low_bytes), (high, high_bytes) = sorted(known.items())[:2]
        slope = max((high_bytes - low_bytes) / (high - low), 1.0)
        guess = int(low + (available - low_bytes) / slope)
    return fits
