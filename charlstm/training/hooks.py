"""The hooks of a run: what it does between dispatches, every so many updates.

Their order matters: a validation joins the line of metrics of its update, is diagnosed, and is
saved with the checkpoint. A user's own hooks come last. A hook of one's own is any object with an
`every` and a `__call__(run)`; every process calls it:

    class PrintSample:
        every = 100

        def __call__(self, run):
            print(run.updates, run.model().generate("ROMEO", 100))

It may read the attributes of the run, call `run.model()`, and `run.log({...})` figures of its own.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from charlstm.config import TrainingConfig
from charlstm.data.ngrams import describe_position
from charlstm.errors import UserError
from charlstm.evaluation.evaluator import Evaluator
from charlstm.runtime import coordination
from charlstm.sampling import texts
from charlstm.sampling.decode import Decoder
from charlstm.sampling.settings import Settings
from charlstm.sampling.text import printable
from charlstm.training.accumulator import summary
from charlstm.training.diagnosis import checks
from charlstm.training.diagnosis.probing import make_probe, norm_of, setting_of
from charlstm.training.diagnosis.statistics import Diagnosis, readable

if TYPE_CHECKING:
    from charlstm.training.run import Run

SAMPLE_BYTES = 300
SAMPLE_TEMPERATURE = 0.8


class UserHook(Protocol):
    """A hook of a user's own, as given to `train`."""

    every: int  # updates

    def __call__(self, run: "Run") -> None:
        """Is called after every so many updates, in every process."""


class Hook:
    """A periodic action of a run.

    Attributes:
      every: the number of updates between two calls; 0 for never.
      cause: the name that its time is booked under in the goodput; None: the name of its class;
        empty: as training.
      is_guarded: True forbids arrays to travel between host and device unless that is said.
    """

    every: int = 0
    cause: str | None = None
    is_guarded: bool = False

    def check(self, run: "Run") -> None:
        """Raises `UserError` for bad input, before anything is compiled."""

    def start(self, run: "Run") -> None:
        """Is called right before the first update."""

    def next_due(self, updates: int) -> int | None:
        """Returns the next update after which the loop is to stop for it; None for none."""
        return (updates // self.every + 1) * self.every if self.every else None

    def is_due(self, run: "Run") -> bool:
        """Returns True if it is to be called now."""
        return run.updates > run.first and _every(run.updates, self.every)

    def __call__(self, run: "Run") -> None:
        """Acts; every process calls the same hooks in the same order."""

    def close(self) -> None:
        """Is called when the run ends, however it ends."""


class Validate(Hook):
    """Scores the validation split; also makes up for an evaluation that preemption left off."""

    cause, is_guarded = "evaluation", True

    def __init__(self, training: TrainingConfig):
        self.every = training.evaluate_every

    def start(self, run: "Run") -> None:
        """See `Hook`."""
        model, bounds = run.evaluation_model(), run.corpus.bounds.valid
        self._evaluator = Evaluator(model, run.corpus.data, *bounds, run.mesh)

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        return run.evaluation_pending or run.evaluation_is_due()

    def __call__(self, run: "Run") -> None:
        """See `Hook`."""
        run.corpus.require_unchanged()
        result = self._evaluator.interruptible(run.evaluation_model(), run.control.should_stop)
        if result is None:
            run.evaluation_pending = True
            return
        bits = result.bits_per_byte
        said = (
            f"{readable(bits, 4)} bits per byte ({readable(result.nats, 4)} nats, "
            f"accuracy {result.accuracy:.1%}), {_position(run, bits)}"
            if math.isfinite(bits)
            else f"not finite (accuracy {result.accuracy:.1%}); it does not count"
        )
        run.console.log(f"validation at update {run.updates}: {said}")
        run.set_validation(
            {
                "valid_bits_per_byte": bits,
                "valid_nats": result.nats,
                "valid_accuracy": result.accuracy,
            }
        )


def _position(run: "Run", bits: float) -> str:
    """Returns where a score is among the n-gram levels, in words."""
    if not run.levels:
        return ""
    counted = run.levels[0].fit_bytes
    is_sample = counted < run.corpus.bounds.train[1]
    return describe_position(bits, run.levels) + (f" of {counted:,} bytes" if is_sample else "")


class Log(Hook):
    """Writes a line of metrics: every so many updates, and where there is more to do."""

    cause, is_guarded = "", True

    def __init__(self, training: TrainingConfig):
        self.every = training.log_every
        self._intervals = (
            training.log_every,
            training.evaluate_every,
            training.sample_every,
            training.checkpoint_every,
        )

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        at_interval = any(_every(run.updates, every) for every in self._intervals)
        return run.has_unlogged_updates and (at_interval or run.updates == run.last)

    def __call__(self, run: "Run") -> None:
        """See `Hook`."""
        run.write_line()
        run.console.update(run.updates, summary(run.last_line))


class Diagnose(Hook):
    """Says what is wrong with a run: on the console and in `metrics.jsonl`, in process 0.

    What is measured for it is measured by all processes.
    """

    cause, is_guarded = "evaluation", True

    def start(self, run: "Run") -> None:
        """See `Hook`."""
        history, params = run.run_state.history, run.train_state.params
        history.norm = history.norm or norm_of(params)
        self._setting = setting_of(run.config, run.streams, params, history.norm, run.levels)
        self._probe = make_probe(
            run.evaluation_model(),
            run.corpus.data,
            run.corpus.bounds.valid,
            run.mesh,
            run.control.should_stop,
        )
        self._report(run, history.start(self._setting))

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        return run.logged_block is not None or bool(run.validation)

    def __call__(self, run: "Run") -> None:
        """See `Hook`."""
        history = run.run_state.history
        if run.logged_block is not None:
            self._report(run, history.update(self._setting, run.logged_block))
        if not run.validation:
            return
        bits = run.validation.get("valid_bits_per_byte", math.nan)
        carried = zeroed = None
        levels = self._setting.levels
        if coordination.broadcast_bool(lambda: checks.near_bigram(levels, bits)):
            carried, zeroed = self._probe(run.evaluation_model()) or (None, None)
        found = history.update_validation(self._setting, run.updates, bits, carried, zeroed)
        self._report(run, found)

    def _report(self, run: "Run", found: list[Diagnosis]) -> None:
        for diagnosis in found:
            run.writers.write({"step": run.updates} | diagnosis.to_json())
            message = f"{diagnosis.code}: {diagnosis.message}"
            run.console.log(f"diagnosis at update {run.updates}: {message}")


class Sample(Hook):
    """Writes a short text: `samples/STEP.txt`, and on the console."""

    cause = "sampling"

    def __init__(self, training: TrainingConfig):
        self.every, self._training = training.sample_every, training

    def start(self, run: "Run") -> None:
        """See `Hook`."""
        self._decoder = Decoder(1, Settings(temperature=SAMPLE_TEMPERATURE))
        # Samples follow the text's own first byte: a prompt that every corpus has.
        self._prompt = run.alphabet.encode(run.corpus.data[:1])

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        training = self._training
        if not self.every or run.evaluation_pending or run.updates == run.first:
            return False
        # The first sample is still noise: it shows where a run came from.
        ends = run.updates in (training.log_every, training.num_updates)
        return ends or _every(run.updates, self.every)

    def __call__(self, run: "Run") -> None:
        """See `Hook`."""
        # Every process draws the same; process 0 alone writes it down.
        pieces = []
        loaded, seed = texts.load(run.whole_model()), self._training.seed
        for piece in self._decoder(loaded, self._prompt, SAMPLE_BYTES, seed):
            pieces.append(piece[0])
            if run.control.should_stop():
                return
        drawn = run.alphabet.decode(np.concatenate(pieces))
        run.writers.sample(run.updates, drawn)
        run.console.log(f"sample at update {run.updates}:\n{printable(drawn)}\n")


class Save(Hook):
    """Saves a checkpoint: every so many updates, with every validation, and at the end."""

    cause, is_guarded = "save", True

    def __init__(self, training: TrainingConfig):
        self.every = training.checkpoint_every

    def is_due(self, run: "Run") -> bool:
        """See `Hook`."""
        at_end = run.updates == run.last or run.evaluation_pending
        return bool(run.validation) or at_end or _every(run.updates, self.every)

    def __call__(self, run: "Run") -> None:
        """See `Hook`."""
        run.save()


class _Adapter(Hook):
    """Makes a hook of a user's object; its time is booked under the name of its class."""

    def __init__(self, hook: UserHook):
        self._hook = hook
        every = getattr(hook, "every", None)
        is_object = callable(hook) and not isinstance(hook, type)
        if not isinstance(every, int) or every < 0 or not is_object:
            raise UserError(
                f"the hook {hook!r} must be an object with `every`, a number of updates (0 for "
                "never), and `__call__(run)`"
            )
        self.every, self.cause = every, type(hook).__name__

    def __call__(self, run: "Run") -> None:
        self._hook(run)


def all_hooks(training: TrainingConfig, more: Sequence[UserHook | Hook]) -> list[Hook]:
    """Returns the hooks of a run in their order; `more` come last.

    Raises:
      UserError: one of them is no hook.
    """
    own = [Validate(training), Log(training), Diagnose(), Sample(training), Save(training)]
    return [*own, *(hook if isinstance(hook, Hook) else _Adapter(hook) for hook in more)]


def _every(updates: int, interval: int) -> bool:
    return interval > 0 and updates % interval == 0
