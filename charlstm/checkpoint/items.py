"""The arrays of a checkpoint: written and read by Orbax, in all processes at once.

Where all processes see one folder, they write into it together. Where each has a folder of its own,
each writes its own shards there, as files that no other process writes; together these files are
the same checkpoint, whatever reads it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from charlstm.runtime import coordination


class Items(Protocol):
    """Writes and reads pytrees of arrays, each under a name."""

    def save(self, folder: Path, items: Mapping[str, Any]) -> None:
        """Starts to write in the background; the arrays may be donated as soon as this returns."""

    def wait(self) -> None:
        """Returns when all is written; raises if it could not be."""

    def restore(self, folder: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """Returns items with the shapes, dtypes and shardings wanted."""

    def close(self) -> None:
        """Ends the background threads."""


def items_of(is_shared: bool) -> Items:
    """Returns what writes and reads the items of a run.

    Args:
      is_shared: True if all processes see one folder.
    """
    return _Shared() if is_shared or coordination.is_single_process() else _Separate()


class _Shared:
    def __init__(self) -> None:
        self._checkpointer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

    def save(self, folder: Path, items: Mapping[str, Any]) -> None:
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._checkpointer.save(folder, args=ocp.args.Composite(**args))

    def wait(self) -> None:
        self._checkpointer.wait_until_finished()

    def restore(self, folder: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        restored = self._checkpointer.restore(folder, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in abstract}

    def close(self) -> None:
        self._checkpointer.close()


class _Separate:
    """Every process is the primary one of its own folder; OCDBT would need a common one."""

    def __init__(self) -> None:
        self._options = ocp.options.MultiprocessingOptions(primary_host=None)
        arrays = type_handlers.ArrayHandler(
            primary_host=None, replica_id=0, use_replica_parallel=False
        )
        self._types = type_handlers.create_type_handler_registry((jax.Array, arrays))
        self._checkpointer: ocp.AsyncCheckpointer | None = None

    def _open(self, names: Mapping[str, Any]) -> ocp.AsyncCheckpointer:
        if self._checkpointer is None:  # a handler is made for each name
            handlers = {
                name: ocp.PyTreeCheckpointHandler(
                    use_ocdbt=False,
                    multiprocessing_options=self._options,
                    type_handler_registry=self._types,
                )
                for name in names
            }
            # In the background one process would tell all that the folders are there.
            at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
            options = ocp.CompositeOptions(
                multiprocessing_options=self._options, async_options=at_once
            )
            handler = ocp.CompositeCheckpointHandler(composite_options=options, **handlers)
            self._checkpointer = ocp.AsyncCheckpointer(
                handler, async_options=at_once, multiprocessing_options=self._options
            )
        return self._checkpointer

    def save(self, folder: Path, items: Mapping[str, Any]) -> None:
        args = {name: ocp.args.PyTreeSave(item) for name, item in items.items()}
        self._open(items).save(folder, args=ocp.args.Composite(**args))

    def wait(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.wait_until_finished()

    def restore(self, folder: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
        args = {
            name: ocp.args.PyTreeRestore(
                item, restore_args=ocp.checkpoint_utils.construct_restore_args(item)
            )
            for name, item in abstract.items()
        }
        restored = self._open(abstract).restore(folder, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in abstract}

    def close(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.close()
