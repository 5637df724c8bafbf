"""Messages between processes: what process 0 decides, and barriers.

They travel through the coordination service that `jax.distributed` keeps beside the devices, so no
device computes them or waits for them. A single process sends none. This is the only file that uses
that service, which JAX has under no public name.
"""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax

from charlstm.errors import TrainingFailed, UserError

# A process that is silent is found dead by its heartbeat, so a wait here may be long.
_TIMEOUT_MS = 24 * 3600 * 1000
_LOST = re.compile("gloo|barrier|connection (closed|reset|refused)|coordination", re.IGNORECASE)
# Processes that fail for the same reason do so at about the same time, but on a busy machine, or
# while some still wait for a disk, that is not within a few seconds.
SECONDS_TO_FAIL_TOGETHER = 20


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def num_processes() -> int:
    """Returns how many processes train together."""
    from jax._src import distributed

    return distributed.global_state.num_processes


def is_single_process() -> bool:
    """Returns True if there is one process only."""
    return _client() is None or num_processes() == 1


def is_first() -> bool:
    """Returns True in process 0: the one that decides, writes files and prints."""
    return jax.process_index() == 0


class KeyValueStore:
    """Short texts that any process may write and read, by key."""

    def write(self, key: str, text: str) -> None:
        """Sets the text of a key; the last one written counts."""
        _client().key_value_set(f"charlstm/{key}", text, allow_overwrite=True)

    def read(self, key: str) -> str:
        """Returns the text of a key, once it has one."""
        return _client().blocking_key_value_get(f"charlstm/{key}", _TIMEOUT_MS)

    def entries(self, folder: str) -> dict[str, str]:
        """Returns every entry `folder/…` there is."""
        return dict(_client().key_value_dir_get(f"charlstm/{folder}/"))

    def delete(self, key: str) -> None:
        """Deletes a key."""
        _client().key_value_delete(f"charlstm/{key}")


_numbers = itertools.count()


def broadcast(make: Callable[[], str]) -> str:
    """Returns in every process what `make` returns in process 0; it is called there only.

    All processes call this in the same order. If `make` raises, process 0 ends and takes the
    others with it.
    """
    if is_single_process():
        return make()
    key = f"broadcast/{next(_numbers)}"
    if is_first():
        text = make()
        KeyValueStore().write(key, text)
        return text
    return KeyValueStore().read(key)


def broadcast_bool(make: Callable[[], bool]) -> bool:
    """`broadcast` for a decision."""
    return broadcast(lambda: str(make())) == "True"


def barrier(name: str, seconds: float = _TIMEOUT_MS / 1000) -> bool:
    """Waits until all processes are here; returns False if they were not within `seconds`."""
    if is_single_process():
        return True
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().wait_at_barrier(f"charlstm/{name}", int(seconds * 1000))
        return True
    return False


def is_loss_of_a_process(error: BaseException) -> bool:
    """Returns True if an error came about because another process is gone.

    The coordination service, the collectives of the CPU (Gloo) and Orbax each report it in a class
    and in words of their own.
    """
    if is_single_process() or isinstance(error, UserError | TrainingFailed):
        return False
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    is_of_jax = any(isinstance(error, jax.errors.JaxRuntimeError) for error in chain)
    return is_of_jax or any(_LOST.search(str(error)) for error in chain)


def leave(code: int) -> None:
    """Ends one of several processes that has failed, without the usual wait for the others.

    Processes that fail for the same reason are given the time to say so. Returns if there is one
    process only.
    """
    if is_single_process():
        return
    barrier("leaving", SECONDS_TO_FAIL_TOGETHER)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def abort(reason: str) -> None:
    """Ends this process at once, with exit code 1, because another process is gone."""
    sys.stdout.flush()
    print(
        f"charlstm: process {jax.process_index()} of {num_processes()} lost the others: one of "
        f"them has died, see what it wrote last ({reason}); the same command goes on from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
