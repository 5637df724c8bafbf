"""Compares every recurrence with float64, all of them in one process."""

import jax

from benchmarks.competitors import recurrence_errors
from benchmarks.correctness import LIMITS
from benchmarks.gpu.work import Work
from charlstm.errors import UserError


def measure(work: Work) -> None:
    """Measures the errors of a window's loss and gradients."""
    for name, variant in work.turns():
        with work.result(name) as figures:
            if variant["recurrence"] == recurrence_errors.SPLIT:
                raise UserError("needs two devices to share a layer")
            competitor = recurrence_errors.prepare(variant)
            figures |= {"device": jax.devices()[0].device_kind, **(competitor.run(1) or {})}
            limit = LIMITS[variant["dtype"]]
            if not figures["gradient_error"] <= limit:
                raise ArithmeticError(f"wrong: the gradients' error is beyond {limit:.0e}")
        jax.clear_caches()
