"""Reads what XLA made of a dispatch, as text.

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
