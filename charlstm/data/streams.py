"""Streams: where in the text each row of the batch reads, as a pure function of the update.

Stream b at update s starts at (b·⌊N/B⌋ + s·T) mod N of the N bytes of the training split. The
text is read in a circle, so a stream never jumps and its carry is always the true one. There is no
iterator and so no iterator state: resuming needs the update's number and nothing else.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.errors import UserError
from charlstm.sharding import dimension, specify

# A text up to a share of its memory is kept on every device whole; a larger one is read from disk
# window by window. Places in a text on the device are uint32 and their sums must not overflow.
DEVICE_RESIDENT_BYTES = 2**30
DEVICE_RESIDENT_SHARE = 1 / 8
# A CPU's devices share one memory, and its processes too, with whatever else runs there.
CPU_RESIDENT_BYTES = 2**26


def resident_bytes() -> int:
    """The size up to which a text is kept on the devices of this process."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return CPU_RESIDENT_BYTES // jax.local_device_count()
    memory = (device.memory_stats() or {}).get("bytes_limit", DEVICE_RESIDENT_BYTES * 8)
    return min(DEVICE_RESIDENT_BYTES, int(memory * DEVICE_RESIDENT_SHARE))


@dataclasses.dataclass(frozen=True)
class Streams:
    """B streams through a text of N bytes, T bytes an update.

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
        """Bytes from the start of one stream to the start of the next."""
        return self.num_bytes // self.num_streams

    @property
    def bytes_per_update(self) -> int:
        """Bytes that one update trains on."""
        return self.num_streams * self.window_length

    def offset(self, step: int) -> int:
        """How far every stream has moved before update `step` (from 0), modulo N."""
        return step * self.window_length % self.num_bytes

    def window(self, text: np.ndarray, step: int) -> np.ndarray:
        """The window of update `step`, on the host: uint8 [T+1, B], the last row targets only."""
        starts = np.arange(self.num_streams) * self.spacing + self.offset(step)
        places = starts + np.arange(self.window_length + 1)[:, None]
        return text[places % self.num_bytes]

    def read(self, text: np.ndarray, step: int, count: int, streams: slice) -> np.ndarray:
        """The windows of updates `step` … `step + count - 1`, of some streams.

        Only the bytes of those streams are touched, one run of them for each stream.

        Args:
          text: uint8 [N], perhaps mapped from disk.
          step: the first update.
          count: K, how many.
          streams: b of the B streams, one after the other.

        Returns:
          uint8 [K, T+1, b].
        """
        chosen = range(self.num_streams)[streams]
        length = count * self.window_length + 1
        runs = np.empty((len(chosen), length), np.uint8)
        for run, stream in zip(runs, chosen, strict=True):
            place = (stream * self.spacing + self.offset(step)) % self.num_bytes
            filled = 0
            while filled < length:  # round the end of the text as often as need be
                part = text[place : place + length - filled]
                run[filled : filled + len(part)] = part
                filled += len(part)
                place = 0
        windows = np.lib.stride_tricks.sliding_window_view(runs, self.window_length + 1, axis=1)
        return windows[:, :: self.window_length].transpose(1, 2, 0)

    def window_on_device(self, text: jax.Array, offset: jax.Array, first: jax.Array) -> jax.Array:
        """The same on the device, inside a jitted function.

        Args:
          text: uint8 [N].
          offset: uint32 scalar, `offset(step)`.
          first: uint32 [B], `first_places()`, split over devices as the streams are.

        Returns:
          uint8 [T+1, B].
        """
        places = first + offset + jnp.arange(self.window_length + 1, dtype=jnp.uint32)[:, None]
        spec = specify(None, dimension(first, 0))
        return text.at[places % self.num_bytes].get(out_sharding=spec, mode="promise_in_bounds")

    def first_places(self) -> np.ndarray:
        """Where every stream starts at update 0: uint32 [B]."""
        return (np.arange(self.num_streams) * self.spacing).astype(np.uint32)
