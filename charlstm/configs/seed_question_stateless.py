"""Trains the model of `seed_question` with its state reset before every update.

charlstm train --config=seed_question_stateless

It shows the plateau of the question, which is about such a model that stalled. The state is zero
before every update, and before every byte in evaluation and sampling too. So the network sees one
byte, and can do no better than the bigram table.

Result on two cores of an Intel Xeon (AVX-512) in 70 s: 3.673 bits per byte (2.546 nats) on the
validation split, whose bigram level is 3.650. At its first validation charlstm reports that the
state is not used (float32, jax 0.10.2, 2026-11-27).
"""

from charlstm.config import Config
from charlstm.configs import seed_question


def get_config() -> Config:
    """Returns the configuration."""
    return seed_question.get_config().replace({"data.carry_state": False})
