"""The training loop: dispatches, and between them hooks."""

from collections.abc import Sequence
from pathlib import Path

import jax
from absl import logging

from charlstm.config import Config
from charlstm.storage import paths
from charlstm.text_model import Model
from charlstm.training.control import Stop
from charlstm.training.hooks import Hook, UserHook, all_hooks
from charlstm.training.run import Run
from charlstm.training.writers import MakeWriter


def train(
    config: Config,
    workdir: str | Path,
    *,
    init_from: str | Path | None = None,
    stop_after: int | None = None,
    hooks: Sequence[UserHook | Hook] = (),
    writers: Sequence[MakeWriter] = (),
    stop: Stop | None = None,
    began: float | None = None,
) -> Model:
    """Trains a model in a folder; resumes from the folder's newest checkpoint if it has one.

    Interrupted at any moment and called again, it ends bit for bit as if it had never stopped. Of
    several processes each calls this, with the same arguments.

    Args:
      config: the experiment, see `load_config`.
      workdir: the run folder; made if need be.
      init_from: a run, checkpoint or exported file whose weights a new run starts from.
      stop_after: ends, saved, after this update of the full schedule.
      hooks: called after every so many updates, after the run's own; see `charlstm.training.hooks`.
      writers: make writers beside the run folder's own, such as `TensorBoardWriter`.
      stop: asked before each dispatch; a number saves the run and raises `Preempted` with it, None
        goes on.
      began: when the account of the run's time begins, by `time.monotonic`; None: now.

    Returns:
      The model after the last update: the average of the parameters if the run keeps one.

    Raises:
      UserError: bad input, before anything is compiled or changed; or the disk is full.
      TrainingFailed: the run diverged, or another process died.
      Preempted: `stop` asked for the end, and the run has been saved.
    """
    every_hook = all_hooks(config.training, hooks)
    workdir = paths.local_to_train(workdir)
    with Run.open(config, workdir, init_from=init_from, stop_after=stop_after, began=began) as run:
        if run.is_finished:
            num_updates = run.config.training.num_updates
            logging.info("nothing to do: %s is at update %d of %d", workdir, run.first, num_updates)
            return run.model()
        run.prepare(every_hook, writers, stop)
        with jax.transfer_guard("disallow"):
            if run.evaluation_pending:
                run.call_due_hooks()
            while not run.is_finished:
                decision = run.control.next()
                if decision.stop is not None:
                    run.settle()
                    raise run.preempt(decision.stop)
                if decision.save:
                    run.settle()
                    run.save()
                due = run.next_due()
                run.dispatch(min(due - run.updates, decision.count))
                if run.updates == due:
                    run.settle()
                    run.call_due_hooks()
        run.finish()
        return run.model()
