"""The facts and statistics of a run that checks judge, in bits per byte, and their verdicts."""

import dataclasses
from collections.abc import Sequence

from charlstm.data.ngrams import NgramLevel

# A block is a fortieth of a run, and no fewer updates than these.
BLOCKS_IN_A_RUN = 40
LEAST_BLOCK = 50


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Something that is wrong with a run: a code for scripts, and a line that names the cure."""

    code: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Returns plain JSON values."""
        return {"diagnosis": self.code, "message": self.message}


Verdict = Diagnosis | bool | None


@dataclasses.dataclass(frozen=True)
class Setting:
    """The facts of a run that are known before it begins.

    Attributes:
      num_updates, warmup_updates: of the schedule.
      window_length, num_streams, stream_bytes: T, B, and the bytes from one stream to the next.
      carry_state: True if a window goes on from the state of the one before.
      learning_rate: the highest of the schedule.
      clip_norm: 0: gradients are not clipped.
      relative_update: the change of the parameters by an update at that rate, relative to them.
      largest_rate: the largest rate that is usual for the optimizer.
      levels: n-gram levels of the validation split; perhaps none.
    """

    num_updates: int
    warmup_updates: int
    window_length: int
    num_streams: int
    stream_bytes: int
    carry_state: bool
    learning_rate: float
    clip_norm: float
    relative_update: float
    largest_rate: float
    levels: Sequence[NgramLevel]

    @property
    def block(self) -> int:
        """The number of updates in a block."""
        return max(LEAST_BLOCK, self.num_updates // BLOCKS_IN_A_RUN)


@dataclasses.dataclass
class Block:
    """Sums over updates that followed one another."""

    updates: int = 0
    step: int = 0  # after the last of them
    bits: float = 0.0  # losses of the updates that were not skipped
    norms: float = 0.0  # gradient norms before clipping, of the updates that were not skipped
    clipped: int = 0
    skipped: int = 0

    def join(self, other: "Block") -> "Block":
        """Returns the sums over this block and the one that follows it."""
        fields = [f.name for f in dataclasses.fields(self) if f.name != "step"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in fields}
        return Block(step=other.step, **sums)

    @property
    def counted(self) -> int:
        """The number of updates that were not skipped."""
        return self.updates - self.skipped

    @property
    def mean_bits(self) -> float:
        """The mean loss of the updates that were not skipped; infinite if all were."""
        return self.bits / self.counted if self.counted else float("inf")


@dataclasses.dataclass(frozen=True)
class Validation:
    """A validation, and the mean of the training loss since the one before, in bits per byte."""

    step: int
    valid: float
    train: float


def readable(value: float, digits: int = 2) -> str:
    """Returns a figure with so many digits behind the point; of a large one its magnitude."""
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.1e}"


def level_of(levels: Sequence[NgramLevel], order: int) -> float | None:
    """Returns the bits per byte of an order's table; None if it is not known."""
    return next((level.bits_per_byte for level in levels if level.order == order), None)
