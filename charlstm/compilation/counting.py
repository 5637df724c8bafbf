"""Counts the kernels and the collectives of an update, in what XLA made of a dispatch."""

import dataclasses
import math
import re
from collections.abc import Iterator

from charlstm.compilation.program_text import Step

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# What starts no kernel of its own.
_FREE = {
    "parameter", "get-tuple-element", "tuple", "constant", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "optimization-barrier", "add-dependency",
}  # fmt: skip
_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Counts the kernels that an update starts on each device.

    Attributes:
      forward: of the loops over time of the forward pass.
      backward: of those of the backward pass.
      total: of the whole update.
    """

    forward: int
    backward: int
    total: int

    @classmethod
    def of(cls, steps: list[Step]) -> "Kernels":
        """Counts the kernels of an update."""
        counts = {True: 0, False: 0}
        total = 0
        for step in steps:
            opcode = step.instruction.opcode
            if step.fused_in or opcode in _FREE or opcode.endswith("-done"):
                continue
            total += step.count
            if step.in_loop:
                counts[step.is_backward] += step.count
        return cls(counts[False], counts[True], total)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind over one axis of the mesh, of one update.

    Attributes:
      kind: such as `all-reduce`.
      axis: `data`, `model`, or `data and model`.
      count: how many an update makes.
      bytes: of their results on one device, all together.
      in_time_loop: True if they are made in every time step.
      group_size: the devices that take part in one of them.
    """

    kind: str
    axis: str
    count: int
    bytes: int
    in_time_loop: bool
    group_size: int


def collectives(steps: list[Step], mesh_shape: tuple[int, int]) -> list[Collective]:
    """Returns the collectives of an update, those alike counted together.

    Args:
      steps: of the update.
      mesh_shape: the devices along `data` and `model`.
    """
    found: dict[tuple[str, str, bool, int], tuple[int, int]] = {}
    for step in _each_once(steps):
        kind = step.instruction.opcode.removesuffix("-start")
        groups = step.instruction.groups()
        size = max((len(group) for group in groups), default=math.prod(mesh_shape))
        key = kind, _axis(groups, mesh_shape), step.in_loop, size
        count, total = found.get(key, (0, 0))
        found[key] = (
            count + step.count,
            total + step.count * step.instruction.result_bytes(),
        )
    return [
        Collective(kind, axis, count, total, in_loop, size)
        for (kind, axis, in_loop, size), (count, total) in sorted(found.items())
    ]


def _each_once(steps: list[Step]) -> Iterator[Step]:
    """Yields the collectives of an update, each of them once.

    A TPU's compiler fuses the start, the course and the end of one with other work, also with a
    whole loop that runs in the meantime. All of these are on the same channel, and what is done
    least often says how often the collective is made.
    """
    fused: dict[tuple[str, str], Step] = {}
    for step in steps:
        kind = step.instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        channel = _CHANNEL.search(step.instruction.text)
        if not step.fused_in or channel is None:
            yield step
            continue
        key = kind, channel.group(1)
        if key not in fused or step.count < fused[key].count:
            fused[key] = step
    yield from fused.values()


def _axis(groups: list[list[int]], mesh_shape: tuple[int, int]) -> str:
    """Returns the axis of the mesh along which the devices of each group lie."""
    along_data = along_model = not groups
    for group in groups:
        data, model = zip(*(divmod(place, mesh_shape[1]) for place in group), strict=True)
        along_data |= len(set(data)) > 1
        along_model |= len(set(model)) > 1
    names = [name for name, along in (("data", along_data), ("model", along_model)) if along]
    return " and ".join(names) or "none"
