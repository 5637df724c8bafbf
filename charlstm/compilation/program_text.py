"""Reads what XLA made of a dispatch: its kernels and its collectives, counted by update.

XLA offers no other way to ask. The text is that of `Compiled.as_text()`, jaxlib 0.10 to 0.11.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

_ITEM_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
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

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"(?:body|to_apply|calls)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BOUND = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_GROUPS_LIST = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}")
_GROUPS_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a program.

    Attributes:
      name: that other instructions of its computation call it by.
      opcode: such as `fusion` or `all-reduce-start`.
      type: of the result, as XLA writes it.
      text: the whole line.
    """

    name: str
    opcode: str
    type: str
    text: str

    @classmethod
    def parse(cls, line: str) -> "Instruction | None":
        """Reads a line; None if it is no instruction."""
        found = _INSTRUCTION.match(line)
        if found is None:
            return None
        rest = line[found.end() :]
        end = _end_of_type(rest)
        opcode = rest[end:].lstrip().partition("(")[0]
        return cls(found.group(1), opcode, rest[:end], line)

    @property
    def operands(self) -> list[str]:
        """Returns the names of the instructions that it reads."""
        _, _, arguments = self.text.partition(f" {self.opcode}(")
        return re.findall(r"%([\w.\-]+)", arguments[: _end_of_type("(" + arguments) - 1])

    @property
    def called(self) -> list[str]:
        """Returns the names of the computations that it runs."""
        if self.opcode == "conditional":
            names = [a or b for a, b in _BRANCHES.findall(self.text)]
            return [name.strip().lstrip("%") for group in names for name in group.split(",")]
        if self.opcode in ("while", "call", "async-start", "fusion"):
            return _CALLED.findall(self.text)
        return []

    @property
    def is_product(self) -> bool:
        """True for a matrix product, XLA's own or one of NVIDIA's library."""
        return self.opcode in ("dot", "convolution") or (
            self.opcode == "custom-call" and 'custom_call_target="__cublas$' in self.text
        )

    @property
    def is_backward(self) -> bool:
        """True for a part of the backward pass, by JAX's name of it."""
        found = _OP_NAME.search(self.text)
        return found is not None and "transpose(" in found.group(1)

    def result_bytes(self) -> int:
        """Returns the bytes of the result on one device.

        What starts a collective may have its operands before the results in its type.
        """
        if self.opcode.endswith("-start") and self.type.startswith("(("):
            return sum(_array_bytes(self.type[1 + _end_of_type(self.type[1:]) :]))
        sizes = _array_bytes(self.type)
        if self.opcode in ("all-gather-start", "collective-permute-start"):
            arrays = [size for size in sizes if size > 4] or sizes
            sizes = arrays[len(arrays) // 2 :]
        return sum(sizes)

    def groups(self) -> list[list[int]]:
        """Returns the devices that take part together, by their places in the mesh."""
        found = _GROUPS_IOTA.search(self.text)
        if found is not None:
            shape, source, order = map(_numbers, found.groups())
            places = np.arange(math.prod(source)).reshape(source)
            if order:
                places = places.transpose(order)
            return [list(map(int, row)) for row in places.reshape(shape)]
        found = _GROUPS_MESH.search(self.text)
        if found is not None:
            axes = re.findall(r"'([^']+)'=(\d+)", found.group(1))
            names, sizes = [name for name, _ in axes], [int(size) for _, size in axes]
            places = np.arange(math.prod(sizes))
            if found.group(2):
                places = places.reshape(_numbers(found.group(2)))
                places = places.transpose(_numbers(found.group(3)) or None)
            along = [names.index(name) for name in re.findall(r"'([^']+)'", found.group(4))]
            others = [axis for axis in range(len(names)) if axis not in along]
            places = places.reshape(sizes).transpose([*others, *along])
            group = math.prod(sizes[axis] for axis in along)
            return [list(map(int, row)) for row in places.reshape(-1, group)]
        found = _GROUPS_LIST.search(self.text)
        if found is None:
            return []
        return [
            [int(number) for number in group.split(",") if number.strip()]
            for group in re.findall(r"\{([\d, ]*)\}", found.group(1))
        ]


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction of one update, and how often it runs in it.

    Attributes:
      instruction: what runs.
      count: how often an update runs it.
      in_loop: True within a loop, which in an update is one over time.
      is_backward: True for a part of the backward pass; a loop's own name decides for all in it.
      fused_in: the computation whose fusion it is a part of; empty for what runs by itself.
    """

    instruction: Instruction
    count: int
    in_loop: bool
    is_backward: bool
    fused_in: str = ""


class Program:
    """The text of a compiled dispatch."""

    def __init__(self, text: str):
        self._computations: dict[str, list[Instruction]] = {}
        self._entry = ""
        lines: list[Instruction] = []
        for line in text.splitlines():
            header = _COMPUTATION.match(line)
            if header is not None:
                lines = self._computations.setdefault(header.group(2), [])
                if header.group(1):
                    self._entry = header.group(2)
                continue
            instruction = Instruction.parse(line.strip())
            if instruction is not None:
                lines.append(instruction)

    def update(self) -> list[Step]:
        """Returns the instructions of one update: of the loop whose length an argument gives."""
        for step in self._walk(self._entry, 1, False, False):
            instruction = step.instruction
            if instruction.opcode == "while" and self._trips(instruction) is None:
                body = re.search(r"body=%?([\w.\-]+)", instruction.text)
                assert body is not None
                return list(self._walk(body.group(1), 1, False, False))
        return list(self._walk(self._entry, 1, False, False))

    def product_dtypes(self) -> set[str]:
        """Returns the dtypes that matrix products take, each as `bf16 x bf16`."""
        found = set()
        for instructions in self._computations.values():
            types = {instruction.name: instruction.type for instruction in instructions}
            for instruction in instructions:
                if instruction.is_product:
                    factors = instruction.operands[:2]
                    dtypes = [types[name].partition("[")[0] for name in factors]
                    found.add(" x ".join(dtypes))
        return found

    def _trips(self, loop: Instruction) -> int | None:
        """Returns how often a loop runs; None if that is not known when it is compiled.

        XLA notes it for a GPU; for a TPU it is the constant that the loop's counter is below.
        """
        noted = _TRIPS.search(loop.text)
        if noted is not None:
            return int(noted.group(1))
        condition = _CONDITION.search(loop.text)
        tests = self._computations.get(condition.group(1), []) if condition else []
        bounds = [_BOUND.search(test.text) for test in tests if test.opcode == "constant"]
        found = [int(bound.group(1)) for bound in bounds if bound is not None]
        return found[0] if len(found) == 1 else None

    def _walk(
        self, name: str, count: int, in_loop: bool, backward: bool, fused_in: str = ""
    ) -> Iterator[Step]:
        for instruction in self._computations.get(name, []):
            is_backward = backward if in_loop else instruction.is_backward
            yield Step(instruction, count, in_loop, is_backward, fused_in)
            trips = self._trips(instruction) if instruction.opcode == "while" else 1
            if trips is None:
                continue
            looping = in_loop or instruction.opcode == "while"
            for called in instruction.called:
                within = name if instruction.opcode == "fusion" else fused_in
                yield from self._walk(called, count * trips, looping, is_backward, within)


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


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number]


def _end_of_type(text: str) -> int:
    """Returns where the type at the beginning of `text` ends; a tuple's has spaces in it."""
    if not text.startswith("("):
        return text.find(" ")
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place + 1
    return len(text)


def _array_bytes(type_text: str) -> list[int]:
    return [
        _ITEM_BYTES[dtype] * math.prod(int(size) for size in sizes.split(",") if size)
        for dtype, sizes in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", type_text)
        if dtype in _ITEM_BYTES
    ]
