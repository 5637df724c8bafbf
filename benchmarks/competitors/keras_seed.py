"""Trains the models of the two Keras scripts that charlstm starts from: stateful LSTMs, T = 1.

- question: two layers of 128, 256 one-hot bytes, batch 32;
- answer: three layers of 1024, only the bytes that occur (84 here), batch 64.

The scripts are for Keras 3. Both see one byte of each stream per update, and no gradient flows
through time. They run on the TensorFlow backend, because on the JAX backend Keras loses the state
of stateful layers (3.15).
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workloads
from benchmarks.competitors import Competitor, versions_of
from charlstm.benchmark import shapes

SHAPES = {
    "question": shapes.Shape(2, 128, 32, 1),
    "answer": shapes.Shape(3, 1024, 64, 1, shapes.NUM_DISTINCT_BYTES),
}


class Seed:
    """Trains a model of the given shape, with T = 1, and keeps its place in a text.

    Args:
      shape: window_length must be 1.
      symbols: int [N], the training text.
    """

    def __init__(self, shape: shapes.Shape, symbols: np.ndarray):
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras

        batch = shape.num_streams
        last = shape.num_layers - 1
        keras.utils.set_random_seed(0)
        self._layers = [
            keras.layers.LSTM(shape.hidden_size, stateful=True, return_sequences=index < last)
            for index in range(shape.num_layers)
        ]
        self.model = keras.Sequential(
            [
                keras.Input(batch_shape=(batch, 1, shape.num_symbols)),
                *self._layers,
                keras.layers.Dense(shape.num_symbols, activation="softmax"),
            ]
        )
        self.model.compile(loss="categorical_crossentropy", optimizer="adam")
        self._one_hot = np.eye(shape.num_symbols, dtype=np.float32)
        self._symbols = symbols
        self._first = np.arange(batch) * (len(symbols) // batch)
        self.step = 0

    def update(self) -> float:
        """Trains on the next byte of every stream and returns the loss in nats."""
        places = (self._first + self.step) % len(self._symbols)
        inputs = self._one_hot[self._symbols[places]]
        targets = self._one_hot[self._symbols[(places + 1) % len(self._symbols)]]
        self.step += 1
        return float(self.model.train_on_batch(inputs[:, None, :], targets))

    def weights(self) -> list[np.ndarray]:
        """Returns each layer's kernel, recurrent kernel and bias, then the head's kernel and bias.

        The order of the gates is charlstm's.
        """
        return [np.asarray(variable) for variable in self.model.trainable_variables]

    def state_is_carried(self) -> bool:
        """Returns True if the last update left a state behind."""
        return all(bool(np.any(np.asarray(layer.states[0]) != 0)) for layer in self._layers)


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training; a run makes `count` updates, or lasts `count` seconds with `snapshots`.

    Args:
      spec: `script` (question or answer), or a `shape` with T = 1 instead; optionally `text`, a
        file of symbols to read instead of the usual text, and `snapshots`, a folder in which the
        weights are saved after each run as `SECONDS.npz`.
    """
    shape = shapes.Shape(**spec["shape"]) if "shape" in spec else SHAPES[spec["script"]]
    text = Path(spec["text"]).read_bytes() if "text" in spec else None
    symbols = workloads.symbols_of(shape) if text is None else np.frombuffer(text, np.uint8)
    seed = Seed(shape, symbols)
    begin = time.perf_counter()
    seed.update()
    info = {
        "first_update_seconds": time.perf_counter() - begin,
        "versions": versions_of("tensorflow", "keras", "numpy"),
        "device": "cpu",
        "state_is_carried": seed.state_is_carried(),
    }
    trained = 0.0

    def train_updates(count: int) -> dict[str, float]:
        for _ in range(count):
            nats = seed.update()
        return {"nats": nats}

    def train_seconds(count: int) -> dict[str, float]:
        nonlocal trained
        begin, seconds = time.perf_counter(), 0.0
        while seconds < count:
            nats = seed.update()
            seconds = time.perf_counter() - begin
        trained += seconds
        np.savez(Path(spec["snapshots"]) / f"{trained:.1f}.npz", *seed.weights())
        return {"nats": nats, "updates": seed.step}

    return Competitor(train_seconds if "snapshots" in spec else train_updates, info)
