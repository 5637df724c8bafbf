"""The updates since the last line of metrics, and the line that comes of them."""

import math
from typing import Any

import numpy as np

from charlstm.training.diagnosis.observed import Block
from charlstm.training.metrics import bytes_rate
from charlstm.training.progress import Progress
from charlstm.training.step import UpdateMetrics


class Interval:
    """Takes the metrics of dispatches in, in order, until a line is due.

    Args:
      progress: of the run; its counts of skipped updates are kept here.
      bytes_per_update: B·T.
    """

    def __init__(self, progress: Progress, bytes_per_update: int):
        self._progress, self._bytes_per_update = progress, bytes_per_update
        self._nats: list[np.ndarray] = []  # of the updates that were not skipped
        self._norms: list[np.ndarray] = []  # of their gradients, before clipping
        self._last: UpdateMetrics | None = None
        self._skipped = 0
        self._seconds = 0.0  # spent in dispatches
        self.updates = 0

    def take_in(self, count: int, metrics: UpdateMetrics, seconds: float) -> None:
        """Takes in a dispatch.

        Args:
          count: the updates it made, the first so many of its metrics.
          metrics: float32 [K] each, on the host.
          seconds: that it took.
        """
        skipped = np.asarray(metrics.skipped)[:count] > 0
        self._nats.append(np.asarray(metrics.nats)[:count][~skipped])
        self._norms.append(np.asarray(metrics.gradient_norm)[:count][~skipped])
        self._last = UpdateMetrics(*(values[count - 1] for values in metrics))
        self._skipped += int(skipped.sum())
        self._seconds += seconds
        self.updates += count
        progress = self._progress
        progress.skipped += int(skipped.sum())
        for was_skipped in skipped:
            progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if was_skipped else 0

    def line(self, step: int) -> dict[str, Any]:
        """A line of `metrics.jsonl`: means over the interval; rate and norm of its last update."""
        nats = np.concatenate(self._nats)
        assert self._last is not None
        norm = float(self._last.gradient_norm)
        return {
            "step": step,
            "seconds": round(self._progress.clock.seconds(), 3),
            "bytes_per_second": round(self.updates * self._bytes_per_update / self._seconds),
            "train_bits_per_byte": float(nats.mean(dtype=np.float64)) / math.log(2)
            if nats.size
            else None,
            "train_accuracy": float(self._last.accuracy),
            "learning_rate": float(self._last.learning_rate),
            "gradient_norm": norm if math.isfinite(norm) else None,
            "skipped_updates": self._progress.skipped,
            **self._progress.goodput.metrics(),
        }

    def block(self, step: int, clip_norm: float) -> Block:
        """The updates as they are judged; gradients were clipped to `clip_norm`, 0 for none."""
        nats, norms = np.concatenate(self._nats), np.concatenate(self._norms)
        return Block(
            updates=self.updates,
            step=step,
            bits=float(nats.sum(dtype=np.float64)) / math.log(2),
            norms=float(norms.sum(dtype=np.float64)),
            clipped=int((norms > clip_norm).sum()) if clip_norm else 0,
            skipped=self._skipped,
        )


def summary(line: dict[str, Any]) -> str:
    """A line of metrics in a few words for the console."""
    bits = line["train_bits_per_byte"]
    loss = (
        f"loss {bits * math.log(2):.3f} bpb {bits:.3f}" if bits is not None else "loss not finite"
    )
    skipped = f" skipped {line['skipped_updates']}" if line["skipped_updates"] else ""
    return f"{loss} {bytes_rate(line['bytes_per_second'])}{skipped}"
