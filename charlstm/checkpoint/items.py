"""The arrays of a checkpoint: written and read by Orbax, in all processes at once.

Where all processes see one folder, they write into it together. Where each has a folder of its own,
each writes its own shards there, as files that no other process writes; together these files are
the same checkpoint, whatever reads it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from charlstm.runtime import coordination


class Items:
    """Writes and reads pytrees of arrays, each under a name.

    Args:
      is_shared: True if all processes see one folder.
    """

    def __init__(self, is_shared: bool):
        self._has_one_folder = is_shared or coordination.is_single_process()
        self._checkpointer: ocp.AsyncCheckpointer | None = None

    def save(self, folder: Path, items: Mapping[str, Any]) -> None:
        """Starts to write in the background; the arrays may be donated as soon as this returns."""
        save = ocp.args.StandardSave if self._has_one_folder else ocp.args.PyTreeSave
        args = {name: save(item) for name, item in items.items()}
        self._open(items).save(folder, args=ocp.args.Composite(**args))

    def wait(self) -> None:
        """Returns when all is written; raises if it could not be."""
        if self._checkpointer is not None:
            self._checkpointer.wait_until_finished()

    def restore(self, folder: Path, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """Returns items with the shapes, dtypes and shardings wanted."""
        restore = ocp.args.StandardRestore if self._has_one_folder else _restore_tree
        args = {name: restore(item) for name, item in abstract.items()}
        restored = self._open(abstract).restore(folder, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in abstract}

    def close(self) -> None:
        """Ends the background threads."""
        if self._checkpointer is not None:
            self._checkpointer.close()

    def _open(self, names: Collection[str]) -> ocp.AsyncCheckpointer:
        if self._checkpointer is None:
            self._checkpointer = (
                ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
                if self._has_one_folder
                else _separate(names)
            )
        return self._checkpointer


def _separate(names: Collection[str]) -> ocp.AsyncCheckpointer:
    """Returns a checkpointer with which every process is the primary one of its own folder."""
    processes = ocp.options.MultiprocessingOptions(primary_host=None)
    arrays = type_handlers.ArrayHandler(primary_host=None, replica_id=0, use_replica_parallel=False)
    handlers = {
        name: ocp.PyTreeCheckpointHandler(
            use_ocdbt=False,  # it would need a common folder
            multiprocessing_options=processes,
            type_handler_registry=type_handlers.create_type_handler_registry((jax.Array, arrays)),
        )
        for name in names
    }
    # In the background one process would tell all that the folders are there.
    at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
    options = ocp.CompositeOptions(multiprocessing_options=processes, async_options=at_once)
    handler = ocp.CompositeCheckpointHandler(composite_options=options, **handlers)
    return ocp.AsyncCheckpointer(handler, async_options=at_once, multiprocessing_options=processes)


def _restore_tree(abstract: Any) -> ocp.args.PyTreeRestore:
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    return ocp.args.PyTreeRestore(abstract, restore_args=restore_args)
