"""Writes the checkpoints of a run, and restores the run from them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from charlstm.checkpoint.failures import reading, writing
from charlstm.checkpoint.metadata import METRIC, Metadata, read_metadata
from charlstm.checkpoint.reading import FOLDER
from charlstm.runtime.files import replace_file


class Checkpoints:
    """The checkpoints of one run, for saving and for resuming.

    Args:
      run: the run folder.
      keep_last: how many of the newest are kept.
      keep_every: one every so many updates is kept for good; 0 for none.
    """

    def __init__(self, run: Path, keep_last: int, keep_every: int):
        policies: list[Any] = [
            checkpoint_managers.LatestN(keep_last),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics[METRIC],
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._folder = run.absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, items: Mapping[str, Any], metadata: Metadata) -> None:
        """Starts a save in the background; the arrays may be donated as soon as this returns.

        Args:
          step: the updates made so far.
          items: pytrees of arrays by name; `params`, and `average` if it is what is used.
          metadata: the JSON part.

        Raises:
          UserError: this save or the one before it could not be written.
        """
        with writing(self._folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                    metadata=ocp.args.JsonSave(metadata.to_json()),
                ),
                metrics=metadata.metrics or None,
            )

    def wait(self) -> None:
        """Returns when every save has reached the disk.

        Raises:
          UserError: a save could not be written.
        """
        with writing(self._folder):
            self._manager.wait_until_finished()

    def restore(self, step: int, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the items that were saved at `step`.

        Args:
          step: of the checkpoint.
          abstract: the items, with the shapes, dtypes and shardings wanted.

        Raises:
          UserError: the checkpoint is damaged or holds other shapes.
        """
        args = ocp.args.Composite(
            **{name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        )
        folder = self._folder / str(step)
        restored = reading(folder, lambda: self._manager.restore(step, args=args))
        return {name: restored[name] for name in abstract}

    def metadata(self, step: int) -> Metadata:
        """Reads the JSON part of the checkpoint at `step`, without its arrays."""
        return read_metadata(self._folder / str(step))

    def add_metrics(self, step: int, metrics: dict[str, float], diagnosis: dict[str, Any]) -> None:
        """Adds the validation to a checkpoint that was saved without; in process 0.

        Args:
          step: of the checkpoint.
          metrics: the validation.
          diagnosis: what the run remembers for its diagnoses now.

        Raises:
          UserError: it could not be written.
        """
        folder = self._folder / str(step)
        metadata = self.metadata(step)
        clock = metadata.clock | {"diagnosis": diagnosis}
        metadata = dataclasses.replace(metadata, metrics=metrics, clock=clock)
        with writing(self._folder):
            (folder / "metrics").mkdir(exist_ok=True)  # where Orbax looks for the best
            replace_file(folder / "metrics" / "metrics", json.dumps(metrics))
            replace_file(folder / "metadata" / "metadata", json.dumps(metadata.to_json()))
        self._manager.reload()

    def close(self) -> None:
        """Ends the background threads; unfinished saves are finished first."""
        with writing(self._folder):
            self._manager.close()
