"""Lets processes that write a checkpoint into folders of their own agree on who sends which file.

All processes call these functions in the same order.
"""

import itertools
import json
from collections.abc import Mapping

import jax

from charlstm.runtime import coordination

_numbers = itertools.count()  # of this process: no key is used twice


def exchange(own: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Tells the others which files this process has written.

    Files that every process writes count once, as those of process 0.

    Args:
      own: digests by relative path.

    Returns:
      The digests of the files of all processes, in process 0 only; those of the files that this
      process is to send.
    """
    if coordination.is_single_process():
        return dict(own), dict(own)
    number, process = next(_numbers), jax.process_index()
    store, keys = coordination.KeyValueStore(), _keys(number)
    if process > 0:
        known = json.loads(store.read(keys[0]))
        mine = {name: digest for name, digest in own.items() if name not in known}
        store.write(keys[process], json.dumps(mine))
        return {}, mine
    store.write(keys[0], json.dumps(own))
    found = dict(own)
    for key in keys[1:]:
        found |= json.loads(store.read(key))
    for key in keys:  # whoever has answered has read the first
        store.delete(key)
    return found, dict(own)


def wait() -> None:
    """Returns when all processes are here.

    Raises:
      RuntimeError: one has died.
    """
    if not coordination.barrier(f"parts/{next(_numbers)}"):
        raise RuntimeError("a process did not come to a barrier of sending a checkpoint")


def _keys(number: int) -> list[str]:
    return [f"parts/{number}/{process}" for process in range(coordination.num_processes())]
