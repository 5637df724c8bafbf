"""Saves a run, and restores it: one shape for both directions."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from charlstm.checkpoint.failures import reading
from charlstm.checkpoint.metadata import Metadata
from charlstm.checkpoint.reading import FOLDER
from charlstm.checkpoint.writing import Checkpoints
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.errors import TrainingFailed
from charlstm.runtime import coordination
from charlstm.training import resume
from charlstm.training.goodput import Goodput
from charlstm.training.metrics_file import FILE as METRICS_FILE
from charlstm.training.program import Program
from charlstm.training.run_info import versions
from charlstm.training.run_state import RunState
from charlstm.training.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class Saved:
    """The state of a run as a checkpoint holds it.

    Attributes:
      updates: made so far.
      train_state: the arrays.
      run_state: everything else that changes.
      validation: figures of the validation at this update; empty if there was none.
    """

    updates: int
    train_state: TrainState
    run_state: RunState
    validation: dict[str, float]


class Saver:
    """The checkpoints of one run.

    Args:
      workdir: the run folder.
      config: of the run, read for which checkpoints are kept.
      alphabet, corpus: of the run, told to each checkpoint.

    Attributes:
      imported: the checkpoint that an import has made, and its metadata, if it is the newest: a run
        begins with its weights. None otherwise.
    """

    def __init__(self, workdir: Path, config: Config, alphabet: Alphabet, corpus: Corpus):
        training = config.training
        self._checkpoints = Checkpoints(
            workdir, training.keep_last, training.keep_every, beside=[workdir / METRICS_FILE]
        )
        self._workdir, self._alphabet, self._corpus = workdir, alphabet, corpus
        self._last = 0  # the updates of the newest checkpoint, or of a run that begins
        step = self._checkpoints.newest()
        newest = None if step is None else (step, self._checkpoints.metadata(step))
        self._newest, self.imported = newest, None
        if newest is not None and newest[1].is_imported:
            self._newest, self.imported = None, (workdir.absolute() / FOLDER / str(step), newest[1])

    @property
    def saved_config(self) -> Config | None:
        """The configuration of the newest checkpoint of this run; None if there is none."""
        return None if self._newest is None else self._newest[1].config

    def restore(self, program: Program, config: Config, goodput: Goodput) -> Saved | None:
        """Returns what the newest checkpoint of this run holds; None if there is none.

        Args:
          program: says how the arrays lie over the devices.
          config: of the run; the checkpoint's must be of the same run.
          goodput: of this process, goes on from the run's.

        Raises:
          UserError: it is another run, or the checkpoint is damaged.
        """
        if self._newest is None:
            return None
        step, metadata = self._newest
        resume.require_same_run(self._workdir, metadata, config, self._corpus)
        saved = metadata.config
        with goodput.lost_to("restore"):
            abstract = resume.with_optimizer(program.abstract_state(), saved.optimizer)
            items = self._checkpoints.restore(step, abstract.to_items())
        state = resume.with_optimizer(TrainState.from_items(items), config.optimizer)
        if config.training.seed != saved.training.seed:
            state = resume.with_seed(state, config.training.seed)
        run_state = reading(
            self._workdir, lambda: RunState.from_json(metadata.clock, config.optimizer, goodput)
        )
        run_state.changes += resume.changes(step, saved, config)
        self._last = step
        return Saved(step, state, run_state, metadata.metrics)

    def save(self, saved: Saved, config: Config) -> bool:
        """Starts saving in the background; returns False if there is such a checkpoint already.

        Raises:
          UserError: this save or the one before it could not be written.
          TrainingFailed: the parameters are not finite.
        """
        if saved.updates == self._last:
            return False
        with jax.transfer_guard("allow"):
            if not jax.device_get(_all_finite(saved.train_state.params)):
                raise TrainingFailed(
                    f"the parameters are not finite at update {saved.updates}: the run ends and "
                    "its checkpoints are as they were; lower optimizer.learning_rate and start "
                    "from the last one"
                )
            metadata = Metadata(
                config=config,
                alphabet=self._alphabet,
                corpus={
                    "name": self._corpus.name,
                    "sha256": self._corpus.sha256,
                    "num_bytes": len(self._corpus.data),
                    "source": self._corpus.source,
                },
                clock=saved.run_state.to_json(),
                metrics=saved.validation,
                versions=versions(),
            )
            self._checkpoints.save(saved.updates, saved.train_state.to_items(), metadata)
        self._last = saved.updates
        return True

    def add_validation(self, saved: Saved) -> None:
        """Adds a validation to the checkpoint that was saved without it; in process 0."""
        if coordination.is_first():
            history = saved.run_state.history.to_json()
            self._checkpoints.add_metrics(saved.updates, saved.validation, history)

    def wait(self) -> None:
        """Returns when every save has reached the disk; raises as `save` does."""
        self._checkpoints.wait()

    def close(self) -> None:
        """Ends the background threads; unfinished saves are finished first."""
        self._checkpoints.close()


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
