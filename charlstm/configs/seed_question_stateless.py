"""The question's model with its state lost: the plateau that the question was about.

charlstm train --config=seed_question_stateless

As `seed_question`, but the state is zero before every update, in scoring and in sampling too: the
network sees one byte, and no table but the bigram's is within its reach.

Result on two cores of an Intel Xeon (AVX-512) in 70 s: 3.673 bits per byte (2.546 nats) on the
validation split, whose bigram level is 3.650; at its first validation charlstm says that the state
is not used (jax 0.10.2, 2026-11-27).
"""

from charlstm.config import Config
from charlstm.configs import seed_question


def get_config() -> Config:
    """The configuration."""
    return seed_question.get_config().replace({"data.carry_state": False})
