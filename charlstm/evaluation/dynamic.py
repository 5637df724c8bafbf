"""Dynamic evaluation: the network goes on learning from the text that it is scored on.

Krause, Kahembwe, Murray & Renals (2018), "Dynamic evaluation of neural sequence models". The text
is read once, in one row, a segment of n bytes at a time. A segment is scored first and learned from
afterwards, so every byte is predicted by parameters that have never seen it. With ∇ the gradient
of the segment's mean nats, θ₀ the trained parameters and r the root of the mean square of the
gradients of segments of the training text,

    rms:  θ ← θ - η ∇ / (r + ε r̄) + min(λ r / r̄, 1) (θ₀ - θ)        (equations 5 to 8)
    sgd:  θ ← θ - η ∇ + λ (θ₀ - θ)

r̄ is the mean of r over the parameters that have any gradient: ε is a share of it, so that neither ε
nor η has to follow the size of a model's gradients. The pull towards θ₀ is bounded by 1, or it
would overshoot. All of it is float32.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from charlstm.errors import UserError
from charlstm.evaluation.evaluator import BYTES_BEFORE_TEXT, Evaluation
from charlstm.evaluation.rows import WARM_UP
from charlstm.model import parameters
from charlstm.model.language_model import LanguageModel
from charlstm.model.network import Network, next_symbol_nats
from charlstm.model.parameters import Params
from charlstm.model.stack import Carry

CHUNK = 64  # segments in one jitted call
# Gradients of so many segments, in so many stretches from all over the training text, give r.
RMS_SEGMENTS, RMS_STRETCHES = 2048, 16


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule by which parameters follow the text; symbols as above.

    The defaults were within 0.001 of the best of eleven on 40,000 bytes of Shakespeare's validation
    split under the quickstart: from 2.107 to 1.956 bits per byte; sgd's, of three, to 1.976.
    """

    kind: Literal["rms", "sgd"] = "rms"
    segment: int = 20  # n, in bytes
    learning_rate: float = 1e-3  # η
    decay: float = 1e-3  # λ
    epsilon: float = 0.5  # rms: a share of r̄

    def __post_init__(self) -> None:
        for name, holds, must_be in (
            ("segment", self.segment >= 1, "1 or more"),
            ("learning_rate", 0 <= self.learning_rate < np.inf, "0 or more"),
            ("decay", 0 <= self.decay <= 1, "from 0 to 1"),
            ("epsilon", 0 < self.epsilon < np.inf, "above 0"),
        ):
            if not holds:
                value = getattr(self, name)
                raise UserError(f"--dynamic_{name}={value:g} must be {must_be}")


DEFAULTS = {"rms": Rule(), "sgd": Rule(kind="sgd", learning_rate=0.1)}


class _Scales(NamedTuple):
    """The factors of each parameter's step."""

    trained: Params  # θ₀
    rate: Params  # η / (r + ε r̄); for sgd η
    pull: Params  # min(λ r / r̄, 1); for sgd λ


class DynamicEvaluator:
    """Scores texts while learning from them, on one device.

    Args:
      model: the trained model, on one device; left as it is.
      rule: how its parameters follow the text.
      training: uint8 [N], the text that the model was trained on; only rms reads it.
    """

    def __init__(self, model: LanguageModel, rule: Rule, training: np.ndarray | None):
        self._rule, self._alphabet = rule, model.alphabet
        self._zero_carry = jax.jit(functools.partial(parameters.zero_carry, num_streams=1))
        network, params = model.network.in_dtype(jnp.float32), model.params
        self._read = jax.jit(network.apply)
        self._learn = jax.jit(
            functools.partial(_learn, network),
            static_argnames="temperatures",
            donate_argnums=(0, 1),
        )
        self._squares = jax.jit(functools.partial(_add_squares, network), donate_argnums=(1, 2))
        if rule.kind == "sgd":
            rate = jax.tree.map(lambda _: jnp.float32(rule.learning_rate), params)
            pull = jax.tree.map(lambda _: jnp.float32(rule.decay), params)
        else:
            if training is None:
                raise ValueError("rms needs the text that the model was trained on")
            rate, pull = _by_rms(self.rms(params, training), rule)
        self._scales = _Scales(params, rate, pull)

    def rms(self, params: Params, training: np.ndarray) -> Params:
        """Returns r, the root of the mean square of each parameter's gradient, over a text."""
        n = self._rule.segment
        stretches = min(RMS_STRETCHES, max(1, len(training) // (4 * n)))
        length = min(RMS_SEGMENTS // stretches * n, len(training) // stretches)
        starts = np.arange(stretches) * (len(training) // stretches)
        text = np.concatenate([training[start : start + length] for start in starts])
        squares, carry = jax.tree.map(jnp.zeros_like, params), self._zero_carry(params)
        windows, scored = self._segments(text, 0, len(text))
        for begin in _progress(len(windows), "gradients of the training text"):
            carry, squares = self._squares(params, carry, squares, *_part(windows, scored, begin))
        count = -(-len(text) // n)
        return jax.tree.map(lambda total: jnp.sqrt(total / count), squares)

    def __call__(
        self,
        data: np.ndarray,
        start: int,
        stop: int,
        temperatures: Sequence[float] = (1.0,),
        warm_up: int = WARM_UP,
    ) -> list[Evaluation]:
        """Scores `data[start:stop]`, every byte of it, learning as it goes.

        Args:
          data: uint8 [N], the corpus that the text is part of.
          start, stop: the bounds of the text; stop > start.
          temperatures: logits are divided by each of them to be scored; what is learned does not
            depend on them.
          warm_up: bytes before the text that are only read.

        Returns:
          The scores, one for each temperature.

        Raises:
          UserError: the text has a byte outside the alphabet, or learning ran away.
        """
        self._alphabet.encode(data[start:stop])
        trained = self._scales.trained
        carry = self._zero_carry(trained)
        read_from = max(start - warm_up, 0)
        if read_from < start:
            before = self._symbols(data, read_from - 1, start - 1)
            _, carry = self._read(trained, carry, before[:, None])
        params = jax.tree.map(jnp.copy, trained)
        windows, scored = self._segments(data, start, stop)
        sums = []
        for begin in _progress(len(windows), "dynamic evaluation"):
            part = _part(windows, scored, begin)
            params, carry, found = self._learn(
                params, carry, self._scales, *part, temperatures=tuple(temperatures)
            )
            sums.append(found)
            if len(sums) > 1:
                jax.block_until_ready(sums[-2])
        nats, correct = np.zeros(len(temperatures)), 0.0
        for part_nats, part_correct in jax.device_get(sums):
            nats += np.sum(part_nats, axis=0, dtype=np.float64)
            correct += float(np.sum(part_correct, dtype=np.float64))
        if not np.isfinite(nats).all():
            raise UserError(
                f"dynamic evaluation ran away with --dynamic_learning_rate="
                f"{self._rule.learning_rate:g}: make it smaller"
            )
        count = stop - start
        return [Evaluation(count, float(total) / count, correct / count) for total in nats]

    def _segments(self, data: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Cuts segments uint8 [S, n+1], with the byte before each; and what is scored, bool [S, n].

        S is a multiple of `CHUNK`; segments beyond the text have nothing to score.
        """
        n = self._rule.segment
        count = -(-(stop - start) // n)
        padded = -(-count // CHUNK) * CHUNK * n
        symbols = self._symbols(data, start - 1, stop)
        symbols = np.pad(symbols, (0, padded + 1 - len(symbols)))
        windows = np.lib.stride_tricks.sliding_window_view(symbols, n + 1)[::n]
        return windows, (np.arange(padded) < stop - start).reshape(-1, n)

    def _symbols(self, data: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Returns the symbols of `data[start:stop]`, uint8; at place -1 is a line break."""
        text = data[max(start, 0) : stop]
        if start < 0:
            text = np.concatenate([np.frombuffer(BYTES_BEFORE_TEXT, np.uint8), text])
        return self._alphabet.encode_table[text]


def _by_rms(rms: Params, rule: Rule) -> tuple[Params, Params]:
    """Returns the factors of gradient and pull of each parameter; see the module's docstring."""
    leaves = jax.tree.leaves(rms)
    total, count = sum(jnp.sum(r) for r in leaves), sum(jnp.sum(r > 0) for r in leaves)
    mean = total / jnp.maximum(count, 1)
    rate = jax.tree.map(lambda r: rule.learning_rate / (r + rule.epsilon * mean), rms)
    pull = jax.tree.map(lambda r: jnp.minimum(rule.decay * r / mean, 1), rms)
    return rate, pull


def _part(windows: np.ndarray, scored: np.ndarray, begin: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a chunk of segments as the device takes it: [K, n+1, 1] and [K, n, 1]."""
    chunk = slice(begin, begin + CHUNK)
    return windows[chunk, :, None], scored[chunk, :, None]


def _progress(count: int, what: str) -> Any:
    """Iterates over the first segment of each chunk, with a progress bar."""
    return tqdm(range(0, count, CHUNK), what, unit="chunk", leave=False, disable=None)


class _Segment(NamedTuple):
    """The results of a segment beside its loss."""

    carry: Carry
    logits: jax.Array  # [n, 1, V]


def _loss(
    params: Params, network: Network, carry: Carry, window: jax.Array, scored: jax.Array
) -> tuple[jax.Array, _Segment]:
    """Returns the mean nats of the scored bytes of a segment [n+1, 1]; 0 if there are none."""
    logits, carry = network.apply(params, carry, window[:-1])
    nats, _ = next_symbol_nats(logits, window[1:])
    mean = jnp.sum(nats, where=scored) / jnp.maximum(jnp.sum(scored), 1)
    return mean, _Segment(carry, logits)


_gradient = jax.grad(_loss, has_aux=True)


def _add_squares(
    network: Network,
    params: Params,
    carry: Carry,
    squares: Params,
    windows: jax.Array,
    scored: jax.Array,
) -> tuple[Carry, Params]:
    """Returns the carry after segments [K, n+1, 1], and `squares` plus their squared gradients."""

    def body(loop: tuple[Carry, Params], segment: tuple[jax.Array, jax.Array]) -> Any:
        carry, squares = loop
        gradient, found = _gradient(params, network, carry, *segment)
        return (found.carry, jax.tree.map(lambda s, g: s + g**2, squares, gradient)), None

    return jax.lax.scan(body, (carry, squares), (windows, scored))[0]


def _learn(
    network: Network,
    params: Params,
    carry: Carry,
    scales: _Scales,
    windows: jax.Array,
    scored: jax.Array,
    *,
    temperatures: tuple[float, ...],
) -> tuple[Params, Carry, tuple[jax.Array, jax.Array]]:
    """Scores and learns from segments [K, n+1, 1], one after the other.

    Returns:
      Parameters and carry after them; sums of nats [K, temperatures] and of right guesses [K].
    """

    def body(loop: tuple[Params, Carry], segment: tuple[jax.Array, jax.Array]) -> Any:
        params, carry = loop
        window, scored = segment
        gradient, found = _gradient(params, network, carry, window, scored)
        sums = []
        for temperature in temperatures:
            scaled = found.logits if temperature == 1 else found.logits * (1 / temperature)
            nats, correct = next_symbol_nats(scaled, window[1:])
            sums.append(jnp.sum(nats, where=scored))
        params = jax.tree.map(
            lambda p, g, trained, rate, pull: p - rate * g + pull * (trained - p),
            params,
            gradient,
            scales.trained,
            scales.rate,
            scales.pull,
        )
        return (params, found.carry), (jnp.stack(sums), jnp.sum(correct, where=scored))

    (params, carry), sums = jax.lax.scan(body, (params, carry), (windows, scored))
    return params, carry, sums
