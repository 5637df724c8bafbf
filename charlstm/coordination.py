"""Words between processes: what process 0 has to say, and meeting places.

They travel through the coordination service that `jax.distributed` keeps beside the devices, so
no device computes, or waits, for them. A process that is alone talks to nobody. The one file that
reaches for that service, which JAX has under no public name.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

# A process that is silent is found dead by its heartbeat; what is waited for here may take long.
_PATIENCE_MS = 24 * 3600 * 1000
# Processes that fail alike do so at about the same time.
SECONDS_TO_FAIL_TOGETHER = 3


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _num_processes() -> int:
    from jax._src import distributed

    return distributed.global_state.num_processes


def is_alone() -> bool:
    """Whether there is one process only."""
    return _client() is None or _num_processes() == 1


def is_first() -> bool:
    """Whether this is process 0: the one that decides, writes files and speaks."""
    return jax.process_index() == 0


class Board:
    """Notes that any process may leave and read, by name."""

    def write(self, name: str, text: str) -> None:
        """Leaves a note; the last one of a name counts."""
        _client().key_value_set(f"charlstm/{name}", text, allow_overwrite=True)

    def read(self, name: str) -> str:
        """The note of that name, once it is there."""
        return _client().blocking_key_value_get(f"charlstm/{name}", _PATIENCE_MS)

    def notes(self, folder: str) -> dict[str, str]:
        """Every note `folder/…` there is."""
        return dict(_client().key_value_dir_get(f"charlstm/{folder}/"))

    def erase(self, name: str) -> None:
        """Takes a note away."""
        _client().key_value_delete(f"charlstm/{name}")


_numbers = itertools.count()


def from_first(make: Callable[[], str]) -> str:
    """What `make` gives in process 0; there it is called, everywhere it is returned.

    To be called by all processes in the same order. If it raises, the others raise as well.
    """
    if is_alone():
        return make()
    name = f"word/{next(_numbers)}"
    if is_first():
        text = make()
        Board().write(name, text)
        return text
    return Board().read(name)


def meet(name: str, seconds: float = _PATIENCE_MS / 1000) -> bool:
    """Waits until all processes are here; False if they were not within `seconds`."""
    if is_alone():
        return True
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().wait_at_barrier(f"charlstm/{name}", int(seconds * 1000))
        return True
    return False


def leave(code: int) -> None:
    """Ends one of several processes that has failed, without the usual wait for the others.

    Those that fail the same way are given the time to say so. Returns if there are no others.
    """
    if is_alone():
        return
    meet("leaving", SECONDS_TO_FAIL_TOGETHER)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_the_lost(reason: str) -> None:
    """Ends this process, with exit code 1, because another one is gone; waits for nothing."""
    sys.stdout.flush()
    print(
        f"charlstm: process {jax.process_index()} of {_num_processes()} lost the others: one of "
        f"them has died, see what it wrote last ({reason}); the same command goes on from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
