"""Says what is wrong with a run while it goes: on the console and in `metrics.jsonl`, in process 0.

All processes call the same methods in the same order, for what is measured is measured by all.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import optax

from charlstm import coordination
from charlstm.config import Config
from charlstm.data.ngrams import NgramLevel
from charlstm.data.streams import Streams
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.training.checkpoint import FOLDER
from charlstm.training.diagnosis import faults
from charlstm.training.diagnosis.history import History, validations_of
from charlstm.training.diagnosis.observed import Block, Diagnosis, Setting
from charlstm.training.metrics import Console, Writer, read_figures

# Of the validation split, for the comparison with a state that is zero before every byte.
PROBE_BYTES = 2**16

# Bits per byte of a part of the validation split, the state as in training and zero before every
# byte; None if the run is to end.
Probe = Callable[[Params], tuple[float, float] | None]


class Diagnostician:
    """Watches a run.

    Args:
      setting: of the run.
      history: what was seen and said before; changed as the run goes on.
      probe: measures whether the state is of use; called near the bigram level only.
      writer, console: where it is told.
    """

    def __init__(
        self, setting: Setting, history: History, probe: Probe, writer: Writer, console: Console
    ):
        self._setting, self._history, self._probe = setting, history, probe
        self._writer, self._console = writer, console

    def began(self, step: int) -> None:
        """Before the first update of this process."""
        self._say(step, self._history.began(self._setting))

    def took(self, seen: Block) -> None:
        """After the line of metrics of some updates was written."""
        self._say(seen.step, self._history.took(self._setting, seen))

    def validated(self, step: int, params: Params, bits_per_byte: float) -> None:
        """After a validation was written."""
        near = coordination.from_first(
            lambda: str(faults.near_bigram(self._setting.levels, bits_per_byte))
        )
        carried = zeroed = None
        if near == "True":
            carried, zeroed = self._probe(params) or (None, None)
        found = self._history.validated(self._setting, step, bits_per_byte, carried, zeroed)
        self._say(step, found)

    def _say(self, step: int, found: list[Diagnosis]) -> None:
        for said in found:
            self._writer.write({"step": step} | said.to_json())
            self._console.say(f"diagnosis at update {step}: {said.code}: {said.message}")


def setting_of(
    config: Config,
    streams: Streams,
    params: Params,
    levels: list[NgramLevel],
) -> Setting:
    """What is known of a run before it begins; `params` are those that it begins with."""
    optimizer, data = config.optimizer, config.data
    norm = float(jax.device_get(jax.jit(optax.tree.norm)(params)))
    if optimizer.name == "sgd":  # a gradient of norm 1, or as it is clipped
        moved = optimizer.learning_rate * (optimizer.clip_norm or 1.0) / (1 - optimizer.momentum)
    else:  # adaptive: every parameter moves by about the rate
        moved = optimizer.learning_rate * math.sqrt(language_model.num_parameters(params))
    return Setting(
        num_updates=config.training.num_updates,
        warmup_updates=optimizer.warmup_updates,
        window_length=data.window_length,
        num_streams=data.num_streams,
        stream_bytes=streams.spacing,
        carry_state=data.carry_state,
        learning_rate=optimizer.learning_rate,
        clip_norm=optimizer.clip_norm,
        relative_update=moved / max(norm, 1e-30),
        levels=levels,
    )


def make_probe(
    evaluator_of: Callable[..., Evaluator],
    bounds: tuple[int, int],
    reset_every: int = 0,
    leaving: Callable[[], bool] = lambda: False,
) -> Probe:
    """Compares the state as in training with one that is zero before every byte.

    Args:
      evaluator_of: an `Evaluator` of the text between two bounds, with a `reset_every`.
      bounds: of the part of the text that is scored, of which the first `PROBE_BYTES` are read.
      reset_every: as in training.
      leaving: whether to leave off, asked again and again.
    """
    start, stop = bounds[0], min(bounds[1], bounds[0] + PROBE_BYTES)
    as_trained, zeroed = (
        evaluator_of(start, stop, reset_every=every) for every in (reset_every, 1)
    )

    def probe(params: Params) -> tuple[float, float] | None:
        first = as_trained.unless(params, leaving)
        second = None if first is None else zeroed.unless(params, leaving)
        if first is None or second is None:
            return None
        return first.bits_per_byte, second.bits_per_byte

    return probe


def unused(
    levels: Sequence[NgramLevel], carry_state: bool, bits: float, probe: Probe, params: Params
) -> list[Diagnosis]:
    """Of a model that was scored: `state_unused`, if it is so."""
    if not faults.near_bigram(levels, bits):
        return []
    carried, zeroed = probe(params) or (None, None)
    verdict = faults.state_unused(levels, carry_state, bits, carried, zeroed)
    return [verdict] if isinstance(verdict, Diagnosis) else []


def overfitted(checkpoint: Path) -> list[Diagnosis]:
    """Of the model in a checkpoint folder: `overfitting`, if its run's metrics say so."""
    if checkpoint.parent.name != FOLDER or not checkpoint.name.isdigit():
        return []
    lines = read_figures(checkpoint.parent.parent)
    verdict = faults.overfitting(validations_of(lines, int(checkpoint.name)))
    return [verdict] if isinstance(verdict, Diagnosis) else []
