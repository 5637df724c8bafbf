"""Holds the competitors of the benchmarks: one module each, run in a process of its own.

A module has `prepare(spec)`, which imports its libraries, compiles, and returns a `Competitor`.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Competitor(NamedTuple):
    """Wraps something that is to be timed."""

    # Does the given number of units of work and returns when all of it is done. It may return
    # figures of its own, which are kept for every run.
    run: Callable[[int], dict[str, float] | None]
    # Facts for the report, among them `versions` and `device`.
    info: dict[str, Any]


def versions_of(*packages: str) -> dict[str, str]:
    """Returns the versions of packages, also of charlstm where it is only a checkout."""
    return {name: _version_of(name) for name in packages}


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # not installed, but in the working folder
        version: str = importlib.import_module(name).__version__
        return version


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
