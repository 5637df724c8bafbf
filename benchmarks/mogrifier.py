"""Compares a Mogrifier with the plain LSTM, in bits per byte and in time.

  python -m benchmarks.mogrifier
  python -m benchmarks.mogrifier --config=quickstart --updates=1000 --gating_rounds=2,4
  python -m benchmarks.mogrifier --field=optimizer.learning_rate=4e-3

Before every time step of a Mogrifier (Melis, Kočiský & Blunsom 2020, equations 1 and 2) a layer's
input x and last output h scale each other in turn, r times:

    x ← 2σ(Q·h) ⊙ x        h ← 2σ(R·x) ⊙ h        …

so no product with x can be computed before the loop. All networks have the configuration's sizes,
an embedding of --embedding numbers, the same windows, optimizer and schedule, and the same code: a
scan that is differentiated automatically. r = 0 is the plain LSTM. The networks train in turn,
--block updates at a time; milliseconds are medians over blocks. Each is scored on the validation
split, cut into rows that begin with a state of zeros; a remainder of fewer bytes than rows is left
out.
"""

import functools
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import common, reporting
from benchmarks.competitors import plain_scan, versions_of
from benchmarks.reporting import Column
from charlstm.config import Config, ModelConfig, load_config
from charlstm.data.corpus import Alphabet, load_corpus
from charlstm.data.streams import Streams
from charlstm.model import parameters
from charlstm.model.network import Network, next_symbol_nats
from charlstm.runtime.targets import Target
from charlstm.training.optimizer import make_optimizer, make_schedule

_CONFIG = flags.DEFINE_string("config", "quickstart", "Sizes, streams, optimizer, and text.")
_FIELDS = flags.DEFINE_multi_string("field", [], "section.field=value, of every network.")
_UPDATES = flags.DEFINE_integer("updates", 1000, "Of each network; its schedule ends with them.", 1)
_BLOCK = flags.DEFINE_integer("block", 50, "Updates that a network makes before the next one.", 1)
_GATING_ROUNDS = flags.DEFINE_list("gating_rounds", ["2", "4"], "r, beside 0.")
_EMBEDDING = flags.DEFINE_integer("embedding", 128, "E, numbers that stand for a byte.", 1)

SCORED_ROWS = 64
_COLUMNS = (
    Column("rounds", "r"),
    Column("parameters", "parameters", reporting.short),
    Column("ms", "ms/update", reporting.number(1)),
    Column("times", "of the plain LSTM's", reporting.ratio),
    Column("half", "bits per byte at half the updates", reporting.number(3)),
    Column("bits_per_byte", "at the end", reporting.number(3)),
)

Gating = list[list[jax.Array]]


class Trained:
    """Trains a network and records its time and its scores.

    Args:
      config: the experiment.
      alphabet_size: V.
      rounds: r, the same in every layer.
      train, valid: symbols of the two splits, uint8.
    """

    def __init__(
        self, config: Config, alphabet_size: int, rounds: int, train: np.ndarray, valid: np.ndarray
    ):
        self.rounds, self.milliseconds, self.bits = rounds, list[float](), list[float]()
        params = initial_params(config, alphabet_size, rounds, _EMBEDDING.value)
        self.num_parameters = parameters.num_parameters(params)
        network = Network.of(config.model, Target.of_this_machine())
        optimizer = make_optimizer(config.optimizer)
        schedule = make_schedule(config.optimizer, config.training.num_updates)
        streams = Streams(len(train), config.data.num_streams, config.data.window_length)
        first = jnp.asarray(streams.first_places())
        text = jnp.asarray(train)
        value_and_grad = jax.value_and_grad(functools.partial(loss, network), has_aux=True)

        def update(step: jax.Array, state: Any) -> Any:
            params, opt_state, carry = state
            offset = (step.astype(jnp.uint32) * streams.window_length) % streams.num_bytes
            window = streams.window_on_device(text, offset, first)
            (_, carry), gradients = value_and_grad(params, carry, window)
            direction, opt_state = optimizer.update(gradients, opt_state, params)
            rate = schedule(step)
            params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
            return params, opt_state, carry

        def block(state: Any, begin: jax.Array, end: jax.Array) -> Any:
            return jax.lax.fori_loop(begin, end, update, state)

        carry = parameters.zero_carry(params, streams.num_streams)
        self._state = params, optimizer.init(params), carry
        at = np.int32(0)
        self._block = jax.jit(block, donate_argnums=0).lower(self._state, at, at).compile()
        self._score = jax.jit(functools.partial(score, network))
        self._valid = valid

    def train(self, begin: int, end: int) -> None:
        """Makes updates `begin` … `end - 1` and records their time."""
        started = time.perf_counter()
        self._state = self._block(self._state, np.int32(begin), np.int32(end))
        jax.block_until_ready(self._state)
        self.milliseconds.append(1e3 * (time.perf_counter() - started) / (end - begin))

    def validate(self) -> None:
        """Records the bits per byte of the validation split, read in rows side by side."""
        length = (len(self._valid) - 1) // SCORED_ROWS
        places = np.arange(SCORED_ROWS) * length + np.arange(length + 1)[:, None]
        nats = self._score(self._state[0], jnp.asarray(self._valid[places]))
        self.bits.append(float(nats) / math.log(2))


def initial_params(config: Config, alphabet_size: int, rounds: int, embedding_size: int) -> Any:
    """Returns the plain network's parameters, with the gating weights added as `gating`.

    Each layer's weights alternate between Q [H, F] and R [F, H].
    """
    model = config.model
    plain = ModelConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        forget_bias=model.forget_bias,
        embedding_size=embedding_size,
    )
    params = parameters.init_params(jax.random.key(0), plain, alphabet_size)
    keys = iter(jax.random.split(jax.random.key(1), max(1, model.num_layers * rounds)))

    def matrix(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, columns)) * rows**-0.5

    gating: Gating = []
    for index in range(model.num_layers):
        sizes = model.hidden_size, embedding_size if index == 0 else model.hidden_size
        gating.append([matrix(*sizes[:: 1 if number % 2 == 0 else -1]) for number in range(rounds)])
    return params | {"gating": gating}


def mogrified(
    gating: Sequence[jax.Array], x: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the input [B, F] and last output [B, H] after they scaled each other in turn."""
    for number, weight in enumerate(gating):
        if number % 2 == 0:
            x = 2 * jax.nn.sigmoid(h @ weight) * x
        else:
            h = 2 * jax.nn.sigmoid(x @ weight) * h
    return x, h


def loss(network: Network, params: Any, carry: Any, window: jax.Array) -> tuple[jax.Array, Any]:
    """Returns the mean nats of a window's next symbols, and the carry after the window.

    Args:
      network: the head is applied as it says.
      params: see `initial_params`.
      carry: {"h", "c"} [L, B, H].
      window: symbols [T+1, B], the last row targets only.
    """
    layers = parameters.layers_of({"layers": params["layers"]})
    gated = [{**layer, "gating": g} for layer, g in zip(layers, params["gating"], strict=True)]

    def step(carry: Any, symbols: jax.Array) -> Any:
        return plain_scan.time_step(
            gated,
            params["embedding"][symbols],
            carry,
            before=lambda layer, x, h: mogrified(layer["gating"], x, h),
        )

    inputs = window.astype(jnp.int32)
    carry, outputs = jax.lax.scan(step, carry, inputs[:-1])
    nats, _ = next_symbol_nats(network.logits(params, outputs), inputs[1:])
    return jnp.mean(nats), carry


def score(network: Network, params: Any, rows: jax.Array) -> jax.Array:
    """Returns the mean nats of rows [N+1, B], each of which begins with a state of zeros."""
    return loss(network, params, parameters.zero_carry(params, rows.shape[1]), rows)[0]


def main(argv: Sequence[str]) -> None:
    """Trains the plain network and those with gating in turn, and reports on them."""
    del argv
    report = common.new_report("mogrifier", "Whether a Mogrifier earns its place")
    report.learn({"device": jax.devices()[0].device_kind})
    report.versions |= versions_of("charlstm", "jax", "jaxlib", "flax", "optax", "numpy")
    fields = common.fields(_FIELDS.value) | {"training.num_updates": _UPDATES.value}
    config = load_config(_CONFIG.value).replace(fields)
    corpus = load_corpus(config.data.corpus, config.data.valid_size, config.data.test_size)
    alphabet = Alphabet.of(config.model.alphabet, corpus.data)
    splits = [alphabet.encode(corpus.split(name)) for name in ("train", "valid")]
    networks = [
        Trained(config, alphabet.size, rounds, *splits)
        for rounds in (0, *map(int, filter(None, _GATING_ROUNDS.value)))
    ]
    blocks = max(2, _UPDATES.value // _BLOCK.value)
    bounds = np.linspace(0, _UPDATES.value, blocks + 1).astype(int)
    for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        for network in networks:
            network.train(int(begin), int(end))
            if number in (blocks // 2, blocks):
                network.validate()
                common.say(f"update {end}, r = {network.rounds}: {network.bits[-1]:.3f}")
    plain = float(np.median(networks[0].milliseconds))
    rows = report.table(f"{_CONFIG.value}, {_UPDATES.value:,} updates", _COLUMNS)
    for network in networks:
        taken = float(np.median(network.milliseconds))
        rows.append(
            {
                "rounds": network.rounds,
                "parameters": network.num_parameters,
                "ms": taken,
                "times": taken / plain,
                "half": network.bits[0],
                "bits_per_byte": network.bits[1],
                "blocks_ms": network.milliseconds,
            }
        )
    report.write(lambda figure: _draw(figure, rows))


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axis = figure.subplots()
    for row in rows:
        axis.plot(row["ms"], row["bits_per_byte"], "o", label=f"r = {row['rounds']}")
    axis.set(xlabel="ms/update", ylabel="validation bits per byte")
    axis.legend()


if __name__ == "__main__":
    app.run(main)
