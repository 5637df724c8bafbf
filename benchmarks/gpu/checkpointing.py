"""Saves while training goes on, a few times."""

import math
import statistics

from benchmarks.competitors import checkpointing
from benchmarks.gpu.work import Work

_SAVES, _SECONDS = 3, 1.0  # how long training goes on beside each


def measure(work: Work) -> None:
    """Measures how long a save delays training; medians over three saves."""
    for name, variant in work.turns():
        with work.result(name) as figures:
            competitor = checkpointing.prepare(variant)
            first = competitor.run(2) or {}
            count = math.ceil(2 * _SECONDS / first["plain"])
            saves = [competitor.run(count) or {} for _ in range(_SAVES)]
            median = {key: statistics.median(save[key] for save in saves) for key in first}
            figures |= {
                "stall_ms": statistics.median(1e3 * (s["saving"] - s["plain"]) for s in saves),
                "call_ms": 1e3 * median["call"],
                "finish_seconds": median["finish"],
                "restore_seconds": median["restore"],
                "checkpoint_bytes": median["checkpoint_bytes"],
                "device": competitor.info["device"],
                "saves": saves,
            }
