"""Computes where in the text each row of the batch reads, as a pure function of the update.

Stream b at update s starts at (b·⌊N/B⌋ + s·T) mod N of the N bytes of the training split. The text
is read in a circle, so a stream never jumps and its carry is always the true one. There is no
iterator and no iterator state: a run resumes from the number of the update alone.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.errors import UserError
from charlstm.runtime.shardings import dimension, specify

# A text of at most this many bytes, and at most this fraction of a device's memory, is kept whole
# on every device; a larger one is read from disk window by window. Positions in a text on the
# device are uint32, and their sums must not overflow.
DEVICE_RESIDENT_BYTES = 2**30
DEVICE_RESIDENT_SHARE = 1 / 8
# All devices and processes of a CPU share one memory with other programs.
CPU_RESIDENT_BYTES = 2**26


def resident_bytes() -> int:
    """Returns the largest size of a text that is kept on the devices of this process."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return CPU_RESIDENT_BYTES // jax.local_device_count()
    memory = (device.memory_stats() or {}).get("bytes_limit", DEVICE_RESIDENT_BYTES * 8)
    return resident_bytes_within(memory)


def resident_bytes_within(memory: float) -> int:
    """Returns the largest size of a text that is kept on an accelerator with so many bytes."""
    return min(DEVICE_RESIDENT_BYTES, int(memory * DEVICE_RESIDENT_SHARE))


@dataclasses.dataclass(frozen=True)
class Streams:
    """Describes B streams through a text of N bytes that advance T bytes per update.

    Raises:
      UserError: the text is shorter than a window or has fewer bytes than there are streams.
    """

    num_bytes: int
    num_streams: int
    window_length: int

    def __post_init__(self) -> None:
        if self.num_bytes < self.window_length + 1:
            raise UserError(
                f"the training split has {self.num_bytes} bytes, a window and the byte after it "
                f"need {self.window_length + 1}: use a longer text or a smaller data.window_length"
            )
        if self.num_bytes < self.num_streams:
            raise UserError(
                f"the training split has {self.num_bytes} bytes for {self.num_streams} streams: "
                f"use a longer text or a smaller data.num_streams"
            )

    @property
    def spacing(self) -> int:
        """Returns the number of bytes from the start of one stream to the start of the next."""
        return self.num_bytes // self.num_streams

    @property
    def bytes_per_update(self) -> int:
        """Returns the number of bytes that one update trains on."""
        return self.num_streams * self.window_length

    def offset(self, step: int) -> int:
        """Returns how far every stream has moved before update `step` (from 0), modulo N."""
        return step * self.window_length % self.num_bytes

    def window(self, text: np.ndarray, step: int) -> np.ndarray:
        """Returns the window of update `step` on the host.

        Returns:
          uint8 [T+1, B]; the last row is only a target.
        """
        starts = np.arange(self.num_streams) * self.spacing + self.offset(step)
        places = starts + np.arange(self.window_length + 1)[:, None]
        return text[places % self.num_bytes]

    def read(self, text: np.ndarray, step: int, count: int, streams: slice) -> np.ndarray:
        """Returns the windows of updates `step` … `step + count - 1` of some streams.

        Only the bytes of those streams are read, one contiguous piece for each stream.

        Args:
          text: uint8 [N], which may be mapped from disk.
          step: the first update.
          count: K, the number of updates.
          streams: the streams to read, b successive ones of the B.

        Returns:
          uint8 [K, T+1, b].
        """
        chosen = range(self.num_streams)[streams]
        length = count * self.window_length + 1
        runs = np.empty((len(chosen), length), np.uint8)
        for run, stream in zip(runs, chosen, strict=True):
            place = (stream * self.spacing + self.offset(step)) % self.num_bytes
            filled = 0
            while filled < length:  # continue at the start of the text as often as needed
                part = text[place : place + length - filled]
                run[filled : filled + len(part)] = part
                filled += len(part)
                place = 0
        windows = np.lib.stride_tricks.sliding_window_view(runs, self.window_length + 1, axis=1)
        return windows[:, :: self.window_length].transpose(1, 2, 0)

    def window_on_device(self, text: jax.Array, offset: jax.Array, first: jax.Array) -> jax.Array:
        """Returns a window on the device, inside a jitted function.

        Args:
          text: uint8 [N].
          offset: uint32 scalar, `offset(step)`.
          first: uint32 [B], `first_places()`, split over devices like the streams.

        Returns:
          uint8 [T+1, B].
        """
        places = first + offset + jnp.arange(self.window_length + 1, dtype=jnp.uint32)[:, None]
        spec = specify(None, dimension(first, 0))
        return text.at[places % self.num_bytes].get(out_sharding=spec, mode="promise_in_bounds")

    def first_places(self) -> np.ndarray:
        """Returns where every stream starts at update 0: uint32 [B]."""
        return (np.arange(self.num_streams) * self.spacing).astype(np.uint32)
