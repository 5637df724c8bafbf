"""The metrics of the updates since the last line of `metrics.jsonl`, and the next line."""

import math
from typing import Any

import numpy as np

from charlstm.training.console import bytes_rate
from charlstm.training.diagnosis.statistics import Block, readable
from charlstm.training.metrics_file import plain
from charlstm.training.run_state import RunState
from charlstm.training.update import UpdateMetrics


class MetricAccumulator:
    """Takes the metrics of dispatches, in order, until a line is due.

    Args:
      run_state: of the run; its counts of skipped updates are kept here.
      bytes_per_update: B·T.

    Attributes:
      updates: how many were taken since the last line.
    """

    def __init__(self, run_state: RunState, bytes_per_update: int):
        self._run_state, self._bytes_per_update = run_state, bytes_per_update
        self._reset()

    def _reset(self) -> None:
        self._nats: list[np.ndarray] = []  # of the updates that were not skipped
        self._norms: list[np.ndarray] = []  # of their gradients, before clipping
        self._last: UpdateMetrics | None = None
        self._skipped = 0
        self._dispatch_seconds = 0.0
        self._seconds = 0.0  # of the run, after the last dispatch
        self.updates = 0

    def update(self, count: int, metrics: UpdateMetrics, seconds: float) -> None:
        """Takes the metrics of a dispatch that has just ended.

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
        self._dispatch_seconds += seconds
        self._seconds = self._run_state.clock.seconds()
        self.updates += count
        state = self._run_state
        state.skipped += int(skipped.sum())
        for was_skipped in skipped:
            state.skipped_in_a_row = state.skipped_in_a_row + 1 if was_skipped else 0

    def take(self, step: int, clip_norm: float) -> tuple[dict[str, Any], Block]:
        """Returns the line of `metrics.jsonl` and the statistics of the updates, and starts anew.

        The line has means over the updates, but the learning rate and the gradient norm of the
        last one.

        Args:
          step: the updates made so far.
          clip_norm: that gradients were clipped to; 0 for none.
        """
        nats, norms = np.concatenate(self._nats), np.concatenate(self._norms)
        assert self._last is not None
        mean = float(nats.mean(dtype=np.float64)) / math.log(2) if nats.size else None
        rate = self.updates * self._bytes_per_update / max(self._dispatch_seconds, 1e-9)
        line = {
            "step": step,
            "seconds": round(self._seconds, 3),
            "bytes_per_second": round(rate),
            "train_bits_per_byte": mean,
            "train_accuracy": float(self._last.accuracy),
            "learning_rate": float(self._last.learning_rate),
            "gradient_norm": float(self._last.gradient_norm),
            "skipped_updates": self._run_state.skipped,
            **self._run_state.goodput.metrics(),
        }
        block = Block(
            updates=self.updates,
            step=step,
            bits=float(nats.sum(dtype=np.float64)) / math.log(2),
            norms=float(norms.sum(dtype=np.float64)),
            clipped=int((norms > clip_norm).sum()) if clip_norm else 0,
            skipped=self._skipped,
        )
        self._reset()
        return plain(line), block


def summary(line: dict[str, Any]) -> str:
    """Returns a line of metrics in a few words for the console."""
    bits = line["train_bits_per_byte"]
    loss = (
        f"loss {readable(bits * math.log(2), 3)} bpb {readable(bits, 3)}"
        if bits is not None
        else "loss not finite"
    )
    skipped = f" skipped {line['skipped_updates']}" if line["skipped_updates"] else ""
    return f"{loss} {bytes_rate(line['bytes_per_second'])}{skipped}"
