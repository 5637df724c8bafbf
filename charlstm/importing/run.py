"""Writes a run folder with one checkpoint, that of an imported model before its first update."""

import shutil
from pathlib import Path

import jax

from charlstm.checkpoint.metadata import IMPORTED, Metadata
from charlstm.checkpoint.writing import Checkpoints
from charlstm.errors import UserError
from charlstm.importing import Imported
from charlstm.runtime import meshes
from charlstm.storage import paths
from charlstm.storage.layout import CHECKPOINTS, IMPORTED_FILE
from charlstm.training.goodput import Goodput
from charlstm.training.program import Program
from charlstm.training.run_folder import open_run_folder, write_json
from charlstm.training.run_info import versions
from charlstm.training.run_state import RunState


def write(model: Imported, output: str) -> Path:
    """Writes the run folder; returns its local path.

    A run that goes on from there begins with the weights of the model, at update 0.

    Args:
      model: see above.
      output: the run folder.

    Raises:
      UserError: it is there already, or cannot be written.
    """
    folder = paths.local_to_train(output)
    if folder.exists():
        raise UserError(
            f"--output={output} is there already: choose another folder, for nothing is overwritten"
        )
    mesh = meshes.make_mesh(1, devices=jax.local_devices()[:1])
    with open_run_folder(folder), jax.set_mesh(mesh):
        if any((folder / name).exists() for name in (CHECKPOINTS, "config.json")):
            raise UserError(
                f"--output={output} has just been made by another: choose another folder"
            )
        try:
            _write(model, folder, mesh)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def _write(model: Imported, folder: Path, mesh: jax.sharding.Mesh) -> None:
    config = model.config
    # The shapes of the state do not depend on how it is computed, which may not go here.
    program = Program(config.replace({"model.recurrence": "auto"}), model.alphabet, mesh)
    params = jax.device_put(model.params, meshes.replicated(mesh))
    state = program.start_from(params, program.initialize(config.training.seed))
    run_state = RunState.new(config.optimizer, Goodput(), model.source)
    metadata = Metadata(
        config=config,
        alphabet=model.alphabet,
        corpus=model.corpus,
        clock=run_state.to_json() | {IMPORTED: True},
        metrics={},  # of another text, perhaps, than that of the run that goes on
        versions=versions(),
    )
    checkpoints = Checkpoints(folder, config.training.keep_last, config.training.keep_every)
    try:
        checkpoints.save(0, state.to_items(), metadata)
    finally:
        checkpoints.close()
    write_json(folder / "config.json", config.to_json())
    # What says that the folder is whole comes last.
    write_json(folder / IMPORTED_FILE, {"from": model.source})
