"""Cuts a text into rows that are scored side by side, window after window."""

import dataclasses
import math

import numpy as np

WINDOW_LENGTH = 128  # where the state is carried on, this is a matter of speed alone
WARM_UP = 2 * WINDOW_LENGTH  # bytes that each row reads before its own
MAX_ROWS = 64
# Where the state is zero before every window, each could be a row: so many bytes are read side by
# side, as many as where it is carried, but no fewer rows than these.
BYTES_SIDE_BY_SIDE = MAX_ROWS * WINDOW_LENGTH
FEWEST_FRESH_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Rows:
    """R rows of a text; what a row reads is one run of bytes.

    Attributes:
      first, last: int64 [R], the bytes that each row scores; `last` is not one of them.
      read_from: int64 [R], the first byte that each row predicts; those before `first` are its
        warm-up. Its first input is the byte before that, at place -1 if the text begins there.
      window_length: T, of a window.
      is_fresh: whether the state is zero before every window, or else before the first alone.
    """

    first: np.ndarray
    last: np.ndarray
    read_from: np.ndarray
    window_length: int
    is_fresh: bool

    @classmethod
    def carried(cls, start: int, stop: int, multiple: int, warm_up: int = WARM_UP) -> "Rows":
        """Rows of `[start, stop)` whose state is carried on from window to window.

        Args:
          start, stop: the bounds of the text.
          multiple: of the number of rows.
          warm_up: how many bytes before its own each row reads, so that it starts with a state as
            good as the true one; fewer at the beginning of the corpus.
        """
        num_bytes = stop - start
        wanted = min(MAX_ROWS, max(1, num_bytes // max(warm_up, WINDOW_LENGTH)))
        count = math.ceil(wanted / multiple) * multiple
        bounds = start + np.arange(count + 1) * num_bytes // count
        first, last = bounds[:-1], bounds[1:]
        return cls(first, last, np.maximum(first - warm_up, 0), WINDOW_LENGTH, is_fresh=False)

    @classmethod
    def fresh(cls, start: int, stop: int, multiple: int, window_length: int) -> "Rows":
        """Rows of `[start, stop)` whose state is zero before every window, the first at `start`."""
        num_windows = math.ceil((stop - start) / window_length)
        side_by_side = max(FEWEST_FRESH_ROWS, BYTES_SIDE_BY_SIDE // window_length)
        count = math.ceil(min(num_windows, side_by_side) / multiple) * multiple
        bounds = start + np.arange(count + 1) * num_windows // count * window_length
        bounds = np.minimum(bounds, stop)
        return cls(bounds[:-1], bounds[1:], bounds[:-1], window_length, is_fresh=True)

    @property
    def count(self) -> int:
        """R."""
        return len(self.first)

    @property
    def num_windows(self) -> int:
        """The number of windows of the longest row."""
        return math.ceil(int(np.max(self.last - self.read_from)) / self.window_length)

    def windows(self, begin: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows number `begin` … `begin + count - 1` of all rows, some beyond their rows' ends.

        Returns:
          The places of their bytes int64 [K, T+1, R], the last only a target, and which of the
          targets [1:] are scored, bool [K, T, R].
        """
        windows = (begin + np.arange(count)[:, None]) * self.window_length
        steps = windows + np.arange(self.window_length + 1)
        # Input t of row r is byte read_from[r] - 1 + t, its target the byte after it.
        places = steps[..., None] + self.read_from - 1
        targets = places[:, 1:]
        return places, (targets >= self.first) & (targets < self.last)
