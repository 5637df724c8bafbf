"""Measurements for diagnoses: the facts of a run, its state zeroed, its metrics on disk."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from charlstm.checkpoint.reading import FOLDER
from charlstm.config import Config
from charlstm.data.ngrams import NgramLevel
from charlstm.data.streams import Streams
from charlstm.evaluation.evaluator import Evaluator
from charlstm.model import parameters
from charlstm.model.language_model import LanguageModel
from charlstm.model.parameters import Params
from charlstm.training.diagnosis import checks
from charlstm.training.diagnosis.history import validations_of
from charlstm.training.diagnosis.statistics import Diagnosis, Setting
from charlstm.training.metrics_file import read_figures

# Of the validation split, for the comparison with a state that is zero before every byte.
PROBE_BYTES = 2**16

# The largest learning rate that is usual for an optimizer that adapts its steps, and for sgd.
LARGEST_ADAPTIVE_RATE, LARGEST_SGD_RATE = 0.01, 1.0

# Returns bits per byte of a part of the validation split, with the state as in training and with a
# state that is zero before every byte; None if the run is to stop.
Probe = Callable[[LanguageModel], tuple[float, float] | None]


def setting_of(
    config: Config,
    streams: Streams,
    params: Params,
    norm: float,
    levels: Sequence[NgramLevel],
) -> Setting:
    """Returns the facts of a run before it begins; `norm` is that of the parameters then."""
    optimizer, data = config.optimizer, config.data
    is_sgd = optimizer.name == "sgd"
    if is_sgd:  # a gradient of norm 1, or as it is clipped
        moved = optimizer.learning_rate * (optimizer.clip_norm or 1.0) / (1 - optimizer.momentum)
    else:  # adaptive: every parameter moves by about the rate
        moved = optimizer.learning_rate * math.sqrt(parameters.num_parameters(params))
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
        largest_rate=LARGEST_SGD_RATE if is_sgd else LARGEST_ADAPTIVE_RATE,
        levels=levels,
    )


def norm_of(params: Params) -> float:
    """Returns the global norm of parameters."""
    return float(jax.device_get(jax.jit(optax.tree.norm)(params)))


def make_probe(
    model: LanguageModel,
    data: np.ndarray,
    bounds: tuple[int, int],
    mesh: jax.sharding.Mesh,
    should_stop: Callable[[], bool] = lambda: False,
) -> Probe:
    """Returns a function that measures whether a model makes use of its state.

    Args:
      model: read for its alphabet, and for how the state is reset in training.
      data: uint8 [N], the corpus.
      bounds: of the part of it that is scored, of which the first `PROBE_BYTES` are read.
      mesh: the devices.
      should_stop: asked again and again; True leaves the measurement off.
    """
    start, stop = bounds[0], min(bounds[1], bounds[0] + PROBE_BYTES)
    as_trained = Evaluator(model, data, start, stop, mesh)
    zeroed = Evaluator(model.replace(reset_every=1), data, start, stop, mesh)

    def probe(model: LanguageModel) -> tuple[float, float] | None:
        first = as_trained.interruptible(model, should_stop)
        second = None if first is None else zeroed.interruptible(model, should_stop)
        if first is None or second is None:
            return None
        return first.bits_per_byte, second.bits_per_byte

    return probe


def unused(
    levels: Sequence[NgramLevel], bits: float, probe: Probe, model: LanguageModel
) -> list[Diagnosis]:
    """Returns `state_unused` of a model that was scored, if it is so."""
    if not checks.near_bigram(levels, bits):
        return []
    carried, zeroed = probe(model) or (None, None)
    verdict = checks.state_unused(levels, not model.reset_every, bits, carried, zeroed)
    return [verdict] if isinstance(verdict, Diagnosis) else []


def overfitted(checkpoint: Path) -> list[Diagnosis]:
    """Returns `overfitting` of the model in a checkpoint folder, if its run's metrics say so."""
    if checkpoint.parent.name != FOLDER or not checkpoint.name.isdigit():
        return []
    lines = read_figures(checkpoint.parent.parent)
    verdict = checks.overfitting(validations_of(lines, int(checkpoint.name)))
    return [verdict] if isinstance(verdict, Diagnosis) else []
