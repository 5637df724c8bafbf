"""Turns a shape into the configuration that `charlstm train` would have."""

from collections.abc import Mapping
from typing import Any

from charlstm.benchmark import shapes
from charlstm.benchmark.shapes import Shape
from charlstm.config import Config

_OPTIMIZER = {
    "optimizer.name": "adam",
    "optimizer.learning_rate": shapes.LEARNING_RATE,
    "optimizer.b1": shapes.BETA_1,
    "optimizer.b2": shapes.BETA_2,
    "optimizer.epsilon": shapes.EPSILON,
    "optimizer.clip_norm": shapes.CLIP_NORM,
    "optimizer.schedule": "constant",
    "optimizer.warmup_updates": 0,
}


def sizes_of(shape: Shape) -> dict[str, Any]:
    """Returns what a shape says of the configuration: values by address."""
    return {
        "model.num_layers": shape.num_layers,
        "model.hidden_size": shape.hidden_size,
        "model.alphabet": "bytes" if shape.num_symbols == 256 else "corpus",
        "data.num_streams": shape.num_streams,
        "data.window_length": shape.window_length,
    }


def config_of(shape: Shape, fields: Mapping[str, Any]) -> Config:
    """Returns the configuration that trains a shape.

    Args:
      shape: the model and its batch.
      fields: more values by address.

    Raises:
      UserError: there is no such field, or the values cannot be combined.
    """
    return Config().replace({**sizes_of(shape), **_OPTIMIZER, **fields})
