"""Windows of a text that does not fit on the devices, read one dispatch ahead by a thread.

Each process reads the bytes of its own devices' streams and no others.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from charlstm.data.mapped import release
from charlstm.data.streams import Streams
from charlstm.runtime import meshes


class HostWindows:
    """Makes the input of each dispatch while the one before is computed.

    Args:
      streams: where the windows are.
      text: uint8 [N], which may be mapped from disk.
      max_updates: K, the windows of a dispatch. All are read, also where fewer are used, for how
        many that will be is not known so early.
      mesh: the devices; streams are split over `data`.
      check: called before each read; what it raises, the call for those windows raises.

    Attributes:
      seconds: for which calls have waited for their windows so far.
    """

    def __init__(
        self,
        streams: Streams,
        text: np.ndarray,
        max_updates: int,
        mesh: jax.sharding.Mesh,
        check: Callable[[], None] = lambda: None,
    ):
        self._streams, self._text, self._max_updates = streams, text, max_updates
        self._check = check
        self._sharding = meshes.split_streams(mesh, axis=2, ndim=3)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="windows")
        self._ahead: tuple[int, Future[jax.Array]] | None = None
        self.seconds = 0.0

    def __call__(self, step: int, count: int) -> tuple[jax.Array]:
        """Returns the windows of updates `step` … `step + count - 1` and more: [K, T+1, B]."""
        begin = time.monotonic()
        if self._ahead is not None and self._ahead[0] == step:
            windows = self._ahead[1].result()
        else:
            windows = self._read(step)
        self.seconds += time.monotonic() - begin
        self._ahead = step + count, self._thread.submit(self._read, step + count)
        return (windows,)

    def _read(self, step: int) -> jax.Array:
        self._check()
        streams = self._streams
        shape = (self._max_updates, streams.window_length + 1, streams.num_streams)
        windows = meshes.put_shards(
            shape,
            np.dtype(np.uint8),
            self._sharding,
            lambda index: streams.read(self._text, step, self._max_updates, index[2]),
        )
        release(self._text)
        return windows
