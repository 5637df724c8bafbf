"""Writes the checkpoints of a run, and restores the run from them.

Everything of a checkpoint is written into a hidden folder first, and has reached the disk with its
digests before a rename makes it a checkpoint. A checkpoint that is deleted is renamed first. So
whoever looks sees whole checkpoints only, also after a loss of power. Which ones are kept follows
from what is on the disk, whatever was restarted.

A run folder in an object store has a copy in every process. Each process writes its own part of a
checkpoint there, and sends it; process 0 then commits the whole.
"""

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from charlstm.checkpoint import digests, parts
from charlstm.checkpoint.failures import DamagedCheckpoint, none_is_whole, reading, writing
from charlstm.checkpoint.items import Items
from charlstm.checkpoint.metadata import Metadata, encoded, metadata_file, read_metadata
from charlstm.checkpoint.reading import FOLDER, best_first, check, saved_steps
from charlstm.runtime import coordination
from charlstm.runtime.files import replace_file, sync
from charlstm.storage import paths


class Checkpoints:
    """The checkpoints of one run, for saving and for resuming; one process changes them at a time.

    Args:
      run: the run folder.
      keep_last: how many of the newest are kept.
      keep_every: one every so many updates is kept for good; 0 for none.
      beside: files that are on the disk before a checkpoint is, if they are there.
    """

    def __init__(self, run: Path, keep_last: int, keep_every: int, beside: Sequence[Path] = ()):
        self._folder = run.absolute() / FOLDER
        self._keep_last, self._keep_every, self._beside = keep_last, keep_every, beside
        self._is_shared = paths.is_shared(self._folder)  # by all processes
        self._writes = coordination.is_first() or not self._is_shared  # files that it sees
        self._items = Items(self._is_shared)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        if self._writes:
            self._clear(".*")
            self._clear("*.orbax-checkpoint-tmp*")  # of format 1
        if coordination.is_first():
            paths.clear_unfinished(run)

    def newest(self) -> int | None:
        """Returns the step of the newest checkpoint that is whole; None if there is none.

        Newer ones that are damaged are kept aside, as `STEP.damaged`, and named.

        Raises:
          UserError: all are damaged.
        """
        step = coordination.broadcast(self._choose)
        return int(step) if step else None

    def _choose(self) -> str:
        damaged: list[DamagedCheckpoint] = []
        for step in saved_steps(self._folder):
            paths.fetch(step)
            try:
                check(step)
            except DamagedCheckpoint as error:
                damaged.append(error)
                continue
            for found in damaged:
                aside = self._set_aside(found.folder)
                logging.warning(
                    "passing over the checkpoint %s: %s; it is kept as %s",
                    *(found.folder, found.reason, aside.name),
                )
            return step.name
        if damaged:
            raise none_is_whole(damaged, "choose another --workdir to begin anew")
        return ""

    def _set_aside(self, step: Path) -> Path:
        aside, number = step.with_name(f"{step.name}.damaged"), 1
        while aside.exists():
            aside, number = step.with_name(f"{step.name}.damaged{number}"), number + 1
        with writing(self._folder):
            step.rename(aside)
            paths.moved(step, aside)
        return aside

    def save(self, step: int, items: Mapping[str, Any], metadata: Metadata) -> None:
        """Starts a save in the background; the arrays may be donated as soon as this returns.

        Args:
          step: the updates made so far.
          items: pytrees of arrays by name; `params`, and `average` if it is what is used.
          metadata: the JSON part; its digests are filled in.

        Raises:
          UserError: this save or the one before it could not be written.
        """
        self.wait()
        draft = self._folder / f".{step}.saving"
        with writing(self._folder):
            self._items.save(draft, items)
        self._saving = self._thread.submit(self._finish, step, draft, metadata)

    def _finish(self, step: int, draft: Path, metadata: Metadata) -> None:
        """Makes a checkpoint of what was written to a hidden folder."""
        try:
            self._items.wait()
            if not self._writes:
                return
            checkpoint = self._folder / str(step)
            sealed = digests.seal(draft)
            found, own = (sealed, {}) if self._is_shared else parts.exchange(sealed)
            if coordination.is_first():
                self._complete(draft, dataclasses.replace(metadata, digests=found))
            if not self._is_shared:  # a damaged one that process 0 has set aside in its copy
                shutil.rmtree(checkpoint, ignore_errors=True)
            os.replace(draft, checkpoint)
            sync(self._folder)
            if not self._is_shared:
                self._send(checkpoint, own)
            if coordination.is_first():
                self._prune()
        except BaseException:
            if self._writes:  # make room for another try
                self._clear(f".{step}.saving*")
            raise

    def _complete(self, draft: Path, metadata: Metadata) -> None:
        """Adds its metadata to what was written; all of it and what is beside reach the disk."""
        metadata_file(draft).parent.mkdir()
        replace_file(metadata_file(draft), encoded(metadata))
        sync(draft)
        for path in self._beside:
            if path.exists():
                sync(path)

    def _send(self, checkpoint: Path, own: Mapping[str, str]) -> None:
        """Sends this process's files of a checkpoint, and commits it when all have been sent."""
        if coordination.is_first():
            paths.begin(checkpoint)
        parts.wait()
        paths.send_part(checkpoint, own)
        parts.wait()
        if coordination.is_first():
            paths.commit(checkpoint)
            paths.thin(checkpoint)
        else:
            shutil.rmtree(checkpoint)

    def _prune(self) -> None:
        """Deletes what need not be kept: not among the newest, not the best, not for good.

        Nor is a checkpoint deleted of which it cannot be read how good it is.
        """
        steps = saved_steps(self._folder)
        kept = set(steps[: self._keep_last])
        if self._keep_every:
            kept |= {step for step in steps if int(step.name) % self._keep_every == 0}
        scores = best_first(steps)
        kept |= {step for step in steps if scores[step] == -math.inf}
        kept |= set([step for step in scores if math.isfinite(scores[step])][:1])
        for step in set(steps) - kept:
            paths.withdraw(step)
            step.rename(step.with_name(f".{step.name}.deleted"))
        self._clear(".*.deleted")

    def _clear(self, pattern: str) -> None:
        for left in self._folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)

    def wait(self) -> None:
        """Returns when every save has reached the disk.

        Raises:
          UserError: a save could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            with writing(self._folder):
                saving.result()

    def restore(self, step: int, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the items that were saved at `step`.

        Args:
          step: of the checkpoint.
          abstract: the items, with the shapes, dtypes and shardings wanted.

        Raises:
          UserError: the checkpoint is damaged or holds other shapes.
        """
        folder = self._folder / str(step)
        paths.fetch(folder)
        restored = reading(folder, lambda: self._items.restore(folder, abstract))
        paths.thin(folder)
        return restored

    def metadata(self, step: int) -> Metadata:
        """Reads the JSON part of the checkpoint at `step`, without its arrays."""
        folder = self._folder / str(step)
        paths.fetch(folder, ())
        return read_metadata(folder)

    def add_metrics(self, step: int, metrics: dict[str, float], diagnosis: dict[str, Any]) -> None:
        """Adds the validation to a checkpoint that was saved without; in process 0.

        Args:
          step: of the checkpoint.
          metrics: the validation.
          diagnosis: what the run remembers for its diagnoses now.

        Raises:
          UserError: it could not be written.
        """
        metadata = self.metadata(step)
        clock = metadata.clock | {"diagnosis": diagnosis}
        metadata = dataclasses.replace(metadata, metrics=metrics, clock=clock)
        with writing(self._folder):
            replace_file(metadata_file(self._folder / str(step)), encoded(metadata))
            paths.commit(self._folder / str(step))
            self._prune()

    def close(self) -> None:
        """Ends the background threads; an unfinished save is finished first."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._items.close()
