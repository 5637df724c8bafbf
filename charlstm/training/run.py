"""A run: what it was given, what it made of it, and everything that changes as it goes on.

The run folder holds config.json, about.json, metrics.jsonl, checkpoints/ and samples/. A run that
finds checkpoints there resumes from the newest, after making sure that it is the same run.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from charlstm.checkpoint.metadata import METRIC, Metadata, read_metadata
from charlstm.checkpoint.reading import FOLDER, saved_steps
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.data.ngrams import NgramLevel, cached_ngram_levels
from charlstm.data.streams import Streams
from charlstm.errors import Preempted, TrainingFailed, UserError, in_one_line
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import coordination, meshes
from charlstm.text_model import Model
from charlstm.training import averaging, memory, resume, startup
from charlstm.training.accumulator import MetricAccumulator
from charlstm.training.console import Console, NullConsole, make_console
from charlstm.training.control import Control, DispatchSize, Stop
from charlstm.training.diagnosis.statistics import Block
from charlstm.training.goodput import Goodput
from charlstm.training.hooks import Hook
from charlstm.training.input import load_shared_corpus
from charlstm.training.metrics_file import plain
from charlstm.training.program import Program
from charlstm.training.run_folder import open_run_folder, write_json
from charlstm.training.run_info import FILE as INFO_FILE
from charlstm.training.run_info import run_info
from charlstm.training.run_state import RunState
from charlstm.training.saving import Saved, Saver
from charlstm.training.update import UpdateMetrics
from charlstm.training.writers import MakeWriter, Writers


class Run:
    """One run of one configuration in one folder.

    Hooks may read all of its attributes.

    Attributes:
      config, workdir: what it was given.
      corpus, alphabet, streams: its text.
      mesh: its devices, in force as `jax.set_mesh`.
      program: what it computes.
      train_state: the arrays; donated to the next dispatch.
      run_state: counters, time, validations, diagnoses.
      updates: made so far, over all restarts.
      first, last: the updates that this process begins after and ends with.
      levels: n-gram levels of the validation split, in process 0.
      validation: figures of the validation at this update, those that are finite; empty if there
        was none.
      evaluation_pending: True if preemption left an evaluation off that is still to be made.
      last_line: the newest line of metrics; empty before the first.
      logged_block: the statistics of the updates that were logged at this update, if any.
      writers, console, control: where it is told, and who decides what comes next.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        corpus: Corpus,
        alphabet: Alphabet,
        mesh: jax.sharding.Mesh,
        goodput: Goodput,
    ):
        self.config, self.workdir, self.corpus, self.mesh = config, workdir, corpus, mesh
        self.alphabet = alphabet
        data = config.data
        self.streams = Streams(len(corpus.split("train")), data.num_streams, data.window_length)
        self.console: Console = NullConsole()
        self.writers = Writers(workdir, [])
        self.levels: Sequence[NgramLevel] = []
        self.validation: dict[str, float] = {}
        self.evaluation_pending = False
        self.last_line: dict[str, Any] = {}
        self.logged_block: Block | None = None
        self._goodput = goodput
        self._hooks: Sequence[Hook] = []
        self._figures: dict[str, Any] = {}  # that join the next line
        self._waiting: tuple[int, UpdateMetrics] | None = None
        self._mark = 0.0

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: Config,
        workdir: Path,
        *,
        init_from: str | Path | None = None,
        stop_after: int | None = None,
        began: float | None = None,
    ) -> Iterator["Run"]:
        """Opens the text, the devices and the folder; restores the state, or makes a new one.

        Args:
          config, workdir, init_from, stop_after, began: see `train`.

        Raises:
          UserError: bad input, before anything is compiled or changed.
        """
        goodput = Goodput(began)
        saved = _newest_metadata(workdir)
        corpus = load_shared_corpus(config.data, saved.corpus if saved else None)
        corpus.split("valid")  # raises if nothing is held out
        alphabet = resume.alphabet_of(config, corpus, saved)
        mesh = meshes.make_mesh(config.data.num_streams, config.mesh.data, config.mesh.model)
        # Raises if the text is too short.
        run = cls(config, workdir, corpus, alphabet, mesh, goodput)
        with open_run_folder(workdir), jax.set_mesh(mesh):
            try:
                run._restore_or_begin(init_from, stop_after)
                yield run
            except Preempted as end:  # process 0 speaks for all
                raise Preempted(str(end) if coordination.is_first() else "", end.code) from end
            except Exception as error:
                if not coordination.is_loss_of_a_process(error):
                    raise
                logging.debug("a process was lost", exc_info=error)
                # Whatever is left to do would wait for the dead.
                coordination.abort(in_one_line(error, 200))
            finally:
                run._close()

    def _restore_or_begin(self, init_from: str | Path | None, stop_after: int | None) -> None:
        self._saver = Saver(self.workdir, self.config, self.alphabet, self.corpus)
        saved_config = self._saver.saved_config
        self.config = config = resume.sized(self.config, self.alphabet, saved_config)
        self.program = Program(config, self.alphabet, self.mesh)
        saved = self._saver.restore(self.program, config, self._goodput)
        if saved is not None:
            if init_from is not None:
                resume.require_same_start(self.workdir, init_from, saved.run_state.init_from)
            logging.info("going on from update %d of %s", saved.updates, self.workdir)
        else:
            saved = self._begin(init_from)
        self.first = self.updates = saved.updates
        self.train_state, self.run_state = saved.train_state, saved.run_state
        self._validation_before = saved.validation
        num_updates = config.training.num_updates
        self.last = min(stop_after or num_updates, num_updates)
        # A run that had to end in the middle of an evaluation makes up for it.
        is_due = saved_config is not None and self.evaluation_is_due()
        self.evaluation_pending = is_due and not saved.validation and self.first <= self.last
        self._accumulator = MetricAccumulator(self.run_state, self.streams.bytes_per_update)
        if not self.is_finished:
            write_json(self.workdir / "config.json", config.to_json())
            resume.log_changes(self.run_state.changes, self.first)

    def _begin(self, init_from: str | Path | None) -> Saved:
        """Returns the state of a run that begins, perhaps with the weights of another."""
        config, source, start = self.config, None, None
        if self._saver.imported is not None:
            checkpoint, metadata = self._saver.imported
            source = metadata.clock.get("init_from")
            if init_from is not None:
                resume.require_same_start(self.workdir, init_from, source)
            start = resume.read_imported(checkpoint, config, self.mesh)
        elif init_from is not None:
            source = resume.absolute(init_from)
            start = resume.read_weights(str(init_from), config, self.alphabet, self.mesh)
        state = self.program.initialize(config.training.seed)
        if start is not None:
            state = self.program.start_from(start, state)
            logging.info("starting from the weights of %s", init_from or source)
        return Saved(0, state, RunState.new(config.optimizer, self._goodput, source), {})

    @property
    def is_finished(self) -> bool:
        """True if nothing is left to do."""
        return self.updates >= self.last and not self.evaluation_pending

    def prepare(
        self, hooks: Sequence[Hook], writers: Sequence[MakeWriter], stop: Stop | None
    ) -> None:
        """Checks the hooks, compiles the update, makes sure that it fits, and tells about the run.

        Args:
          hooks: in their order.
          writers: make the writers beside the run folder's own.
          stop: see `train`.

        Raises:
          UserError: bad input, or an update does not fit into memory.
        """
        for hook in hooks:
            hook.check(self)
        config, training = self.config, self.config.training
        self.writers = Writers.make(self.workdir, self.first, config.to_json(), writers)
        with self._goodput.lost_to("compile"):
            text = self.corpus.split("train")
            self._dispatch = self.program.compile(
                self.streams, text, self.train_state, check=self.corpus.require_unchanged
            )
            memory.require_memory(self, self._dispatch)
        self._goodput.count_input(self._dispatch.input_seconds)
        startup.log_summary(self)
        logging.info("%s", self._memory_table().describe(memory.available_bytes()))
        if coordination.is_first():
            self.levels = cached_ngram_levels(self.corpus, "valid")
        write_json(self.workdir / INFO_FILE, run_info(self))
        size = DispatchSize(training.updates_per_dispatch, self._dispatch.max_updates)
        self.control = Control(size, stop, training.checkpoint_seconds)
        self.writers.open_metrics_file(self.first)
        self.console = make_console(training.num_updates, self.first)
        self._hooks = hooks
        for hook in hooks:
            hook.start(self)
        self._begin_averaging(self._validation_before)
        self._goodput.started()

    def _memory_table(self) -> memory.MemoryTable:
        """Returns the memory that an update needs of each device, by what it holds."""
        analysis = self._dispatch.memory_analysis()
        resident = self._dispatch.resident
        return memory.MemoryTable.of(self.program, self.streams, analysis, resident=resident)

    # Updates.

    def dispatch(self, count: int) -> None:
        """Starts the next `count` updates; then takes the metrics of the dispatch before.

        So the host stays one dispatch ahead, and neither it nor the devices wait.
        """
        before, begun = self._waiting, self.run_state.clock.seconds()
        self.train_state, metrics = self._dispatch(self.train_state, self.updates, count)
        self.updates += count
        self.validation, self.logged_block = {}, None
        self._waiting = (count, metrics)
        if before is None:
            self._mark = begun
        else:
            self._collect(*before)

    def settle(self) -> None:
        """Waits for the last dispatch and takes its metrics; the devices are idle then."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._collect(*waiting)

    def _collect(self, count: int, metrics: UpdateMetrics) -> None:
        metrics = jax.device_get(metrics)
        now = self.run_state.clock.seconds()
        self.control.dispatch_size.update(count, now - self._mark)
        self._accumulator.update(count, metrics, now - self._mark)
        self._mark = now
        skipped = self.run_state.skipped_in_a_row
        if skipped >= self.config.training.max_skipped_in_a_row:
            raise TrainingFailed(
                f"{skipped} updates in a row had a loss or gradient that was not finite: the run "
                "ends and its checkpoints are as they were; lower optimizer.learning_rate or set "
                "optimizer.clip_norm, and start from the last one"
            )

    # Hooks.

    def next_due(self) -> int:
        """Returns the next update after which a hook is due, or the run ends."""
        marks = (hook.next_due(self.updates) for hook in self._hooks)
        return min([self.last, *(mark for mark in marks if mark is not None)])

    def call_due_hooks(self) -> None:
        """Calls the hooks that are due, in order; books their time under their causes."""
        for hook in self._hooks:
            if not hook.is_due(self):
                continue
            cause = type(hook).__name__ if hook.cause is None else hook.cause
            booked = self._goodput.lost_to(cause) if cause else contextlib.nullcontext()
            with booked, jax.transfer_guard("disallow" if hook.is_guarded else "allow"):
                hook(self)

    def evaluation_is_due(self) -> bool:
        """Returns True if the state after this update is to be validated."""
        training = self.config.training
        every = training.evaluate_every
        return self.updates == training.num_updates or (every > 0 and self.updates % every == 0)

    def set_validation(self, figures: Mapping[str, float]) -> None:
        """Takes the figures of a validation; averaging of the parameters may start with it.

        Figures that are not finite are written down as None and count nowhere.
        """
        figures = plain(figures)
        self.validation = {name: value for name, value in figures.items() if value is not None}
        self.evaluation_pending = False
        if self.updates == self.first:  # its line was written by an earlier process
            self.writers.merge({"step": self.updates} | dict(figures))
        else:
            self._figures |= figures
        self._begin_averaging(self.validation)

    def _begin_averaging(self, validation: Mapping[str, float]) -> None:
        bits = validation.get(METRIC)
        if bits is not None and self.run_state.validations.update(self.updates, bits):
            self.console.log(
                f"the validation has stalled: from update {self.updates} on parameters are averaged"
            )
            self.train_state = averaging.begin(self.train_state, self.updates)

    # What it tells.

    @property
    def has_unlogged_updates(self) -> bool:
        """True if updates were made since the last line of metrics."""
        return self._accumulator.updates > 0

    def log(self, figures: Mapping[str, Any]) -> None:
        """Adds figures of this update to `metrics.jsonl`, in a line of their own.

        Args:
          figures: by name; numbers (scalars of NumPy and JAX too), texts, or None. A number that is
            not finite is written as None. The names `step` and `diagnosis` are taken.

        Raises:
          UserError: a name is taken.
        """
        taken = {"step", "diagnosis"} & set(figures)
        if taken:
            raise UserError(f"run.log has figures named {', '.join(sorted(taken))}: rename them")
        self.writers.write({"step": self.updates} | dict(figures))

    def write_line(self) -> None:
        """Writes the line of metrics of the updates since the last one."""
        clip_norm = self.config.optimizer.clip_norm
        line, self.logged_block = self._accumulator.take(self.updates, clip_norm)
        self.last_line, self._figures = line | self._figures, {}
        self.writers.write(self.last_line)

    def model(self) -> Model:
        """Returns the model as it is now, on one device; it stays valid."""
        whole = self.whole_model()
        params = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole.params)
        with jax.set_mesh(meshes.single_device_mesh()):
            params = jax.tree.map(jnp.copy, params)  # the next dispatch takes the originals
        return Model(params, whole.alphabet, whole.network, whole.reset_every)

    def evaluation_model(self) -> LanguageModel:
        """Returns the model as the mesh evaluates it; it is valid until the next dispatch."""
        return self.program.evaluation_model(self.train_state)

    def whole_model(self) -> LanguageModel:
        """Returns the model whole on every device; it is valid until the next dispatch."""
        return self.program.whole_model(self.train_state)

    # What it keeps.

    def save(self) -> None:
        """Starts saving a checkpoint of this update in the background, if there is none yet.

        A validation that was made up for is added to the checkpoint that was saved without.

        Raises:
          UserError: this save or the one before it could not be written, or the text has changed.
          TrainingFailed: the parameters are not finite.
        """
        self.corpus.require_unchanged()
        saved = Saved(self.updates, self.train_state, self.run_state, self.validation)
        with self._goodput.lost_to("save"):
            if self._saver.save(saved, self.config):
                self.control.saved()
            elif self.validation and self.updates == self.first:
                self._saver.add_validation(saved)

    def finish(self) -> None:
        """Returns when all is on disk, and says where the time went."""
        with self._goodput.lost_to("save"):
            self._saver.wait()
        self.console.log(self._goodput.summary())

    def preempt(self, code: int) -> Preempted:
        """Saves the run and returns what to raise for an end with exit code `code`."""
        if self.has_unlogged_updates:
            self.write_line()
        self.save()
        self.finish()
        if self.updates == 0:
            message = "ended before an update was made; the same command begins again"
        else:
            message = f"saved at update {self.updates}; the same command goes on from there"
        return Preempted(message, code)

    def _close(self) -> None:
        with contextlib.ExitStack() as closing:  # closes all, the last first, whatever fails
            if hasattr(self, "_saver"):  # the folder could be opened
                closing.callback(self._saver.close)
            closing.callback(self.writers.close)
            for hook in reversed(self._hooks):
                closing.callback(hook.close)
            closing.callback(self.console.close)


def _newest_metadata(workdir: Path) -> Metadata | None:
    """Returns the metadata of the newest checkpoint that has readable ones; None if none has."""
    for step in saved_steps(workdir / FOLDER):
        with contextlib.suppress(UserError):
            return read_metadata(step)
    return None
