"""The training loop: dispatches, and between them logging, validation, samples and checkpoints.

The host is always one dispatch ahead: it starts the next one and only then reads the metrics of the
one before, so that neither waits for the other.
"""

import dataclasses
from collections.abc import Callable

import jax

from charlstm.config import TrainingConfig
from charlstm.data.streams import Streams
from charlstm.errors import Ended, TrainingFailed
from charlstm.evaluation.evaluator import Evaluation
from charlstm.model.language_model import Params
from charlstm.training import averaging
from charlstm.training.conductor import Conductor
from charlstm.training.diagnosis.diagnostician import Diagnostician
from charlstm.training.interval import Interval, summary
from charlstm.training.metrics import Console, Writer
from charlstm.training.profile import Profile
from charlstm.training.program import Dispatch
from charlstm.training.progress import Progress
from charlstm.training.state import TrainState
from charlstm.training.step import UpdateMetrics


@dataclasses.dataclass(frozen=True)
class Actions:
    """What the loop does between dispatches; each reads the state and leaves it as it is.

    Evaluation and sampling give None if they were left off because the run is to end.
    """

    evaluate: Callable[[Params], Evaluation | None]
    sample: Callable[[Params, int], str | None]  # (params, step) → a short text
    save: Callable[[TrainState, int, dict[str, float]], None]  # (state, step, validation metrics)
    reference: Callable[[float], str]  # bits per byte → where they are among the n-gram levels


def fit(
    state: TrainState,
    dispatch: Dispatch,
    streams: Streams,
    config: TrainingConfig,
    stop: int,
    actions: Actions,
    progress: Progress,
    writer: Writer,
    console: Console,
    conductor: Conductor,
    diagnostician: Diagnostician,
    clip_norm: float,
    profile: Profile | None = None,
) -> TrainState:
    """Trains from where `state` is to update `stop`, saves, and returns the state.

    Of several processes each runs this loop; they do the same in the same order.

    Args:
      state: donated.
      dispatch: makes several updates.
      streams: what an update reads.
      config: intervals and limits.
      stop: the update to end at, at most `config.num_updates`.
      actions: evaluation, samples, saving.
      progress: clock and counters, changed as the run goes on.
      writer, console: where the run is told.
      conductor: decides on dispatches, on saves by time and on an early end.
      diagnostician: is shown what comes of the updates, and says what is wrong.
      clip_norm: that gradients are clipped to; 0 for none.
      profile: traces some of the updates.

    Raises:
      TrainingFailed: too many updates in a row were not finite.
      UserError: a checkpoint could not be written.
      Ended: the run was asked to end, and its state is being saved.
    """
    goodput = progress.goodput
    step = int(jax.device_get(state.step))
    saved_step = step
    interval = Interval(progress, streams.bytes_per_update)
    waiting: tuple[int, UpdateMetrics] | None = None
    mark = progress.clock.seconds()

    def read(waiting: tuple[int, UpdateMetrics] | None) -> None:
        """Waits for a dispatch to end and takes its metrics in."""
        nonlocal mark
        if waiting is None:
            return
        count, metrics = waiting[0], jax.device_get(waiting[1])
        now = progress.clock.seconds()
        conductor.pace.took(count, now - mark)
        interval.take_in(count, metrics, now - mark)
        mark = now
        if progress.skipped_in_a_row >= config.max_skipped_in_a_row:
            raise TrainingFailed(
                f"{progress.skipped_in_a_row} updates in a row had a loss or gradient that was "
                "not finite: the run ends and its checkpoints are as they were; lower "
                "optimizer.learning_rate or set optimizer.clip_norm, and start from the last one"
            )

    def save(validated: dict[str, float]) -> None:
        nonlocal saved_step
        if step == saved_step:
            return  # nothing has changed since
        with goodput.lost_to("save"):
            actions.save(state, step, validated)
        saved_step = step
        conductor.saved()

    while step < stop:
        if profile is not None:
            profile.at(step)
        order = conductor.next()
        if order.save or order.leave is not None:
            read(waiting)
            waiting = None
            if order.leave is not None:
                if interval.updates:
                    writer.write(interval.line(step))
                save({})
                raise ended(step, order.leave)
            save({})
            mark = progress.clock.seconds()
        due = min(_due(step, stop, config), (profile and profile.next_mark(step)) or stop)
        count = min(due - step, order.count)
        state, metrics = dispatch(state, step, count)
        step += count
        read(waiting)
        waiting = (count, metrics)
        if step < due:
            continue

        read(waiting)
        waiting = None
        last = step == config.num_updates
        line, seen = interval.line(step), interval.block(step, clip_norm)
        interval = Interval(progress, streams.bytes_per_update)
        left_off = False
        validated: dict[str, float] = {}
        if evaluation_is_due(step, config):
            with goodput.lost_to("evaluation"):
                validated = validate(state.weights, step, actions, console)
            state = after_validation(state, step, validated, progress, console)
            left_off = not validated
        writer.write(line | validated)
        console.update(step, summary(line))
        diagnostician.took(seen)
        if validated:
            with goodput.lost_to("evaluation"):
                diagnostician.validated(step, state.weights, validated["valid_bits_per_byte"])
        # The first sample is still noise: it shows where a run came from.
        is_first = step == config.log_every
        if (
            config.sample_every
            and not left_off
            and (last or is_first or _every(step, config.sample_every))
        ):
            with goodput.lost_to("sampling"):
                sample = actions.sample(state.weights, step)
            if sample is not None:
                console.say(sample)
        if step == stop or validated or left_off or _every(step, config.checkpoint_every):
            save(validated)
        if left_off and step == stop:
            leave = conductor.next().leave
            assert leave is not None
            raise ended(step, leave)
        mark = progress.clock.seconds()
    return state


def ended(step: int, code: int) -> Ended:
    """What to raise after the save at update `step`, for a run that is to end with `code`."""
    if step == 0:
        return Ended("ended before an update was made; the same command begins again", code)
    return Ended(f"saved at update {step}; the same command goes on from there", code)


def _every(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def _due(step: int, stop: int, config: TrainingConfig) -> int:
    """The next update after which the loop has something to do."""
    intervals = (
        config.log_every,
        config.evaluate_every,
        config.sample_every,
        config.checkpoint_every,
    )
    return min([stop] + [(step // every + 1) * every for every in intervals if every])


def evaluation_is_due(step: int, config: TrainingConfig) -> bool:
    """Whether the state after update `step` is to be validated."""
    return step == config.num_updates or _every(step, config.evaluate_every)


def after_validation(
    state: TrainState,
    step: int,
    validated: dict[str, float],
    progress: Progress,
    console: Console,
) -> TrainState:
    """The state to go on from after a validation: averaging may start with it."""
    bits = validated.get("valid_bits_per_byte")
    if bits is None or not progress.validations.take_in(step, bits):
        return state
    console.say(f"the validation has stalled: from update {step} on parameters are averaged")
    return averaging.begin(state, step)


def validate(params: Params, step: int, actions: Actions, console: Console) -> dict[str, float]:
    """Scores the parameters and says how they did; empty if it was left off."""
    result = actions.evaluate(params)
    if result is None:
        return {}
    console.say(
        f"validation at update {step}: {result.bits_per_byte:.4f} bits per byte "
        f"({result.nats:.4f} nats, accuracy {result.accuracy:.1%}), "
        f"{actions.reference(result.bits_per_byte)}"
    )
    return {
        "valid_bits_per_byte": result.bits_per_byte,
        "valid_nats": result.nats,
        "valid_accuracy": result.accuracy,
    }
