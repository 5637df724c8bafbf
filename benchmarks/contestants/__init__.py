"""What takes turns in a benchmark: one module each, run in a process of its own.

A module has `prepare(spec)`, which imports its libraries, compiles, and returns a `Contestant`.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Contestant(NamedTuple):
    """Something to be timed."""

    # Does that many units of work, and returns when all of it is done; may return figures of its
    # own, which are kept for every turn.
    turn: Callable[[int], dict[str, float] | None]
    # Facts for the report; `versions` and `device` among them.
    info: dict[str, Any]


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of packages, those of charlstm's own checkout included."""
    return {name: _version_of(name) for name in packages}


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # not installed, but in the working folder
        version: str = importlib.import_module(name).__version__
        return version


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
