"""The question's model with its state lost: the plateau that the question was about.

charlstm train --config=seed_question_stateless

As `seed_question`, but the state is zero before every update, in scoring and in sampling too: the
network sees one byte, and no table but the bigram's is within its reach.

Not yet run.
"""

from charlstm.config import Config
from charlstm.configs import seed_question


def get_config() -> Config:
    """The configuration."""
    return seed_question.get_config().replace({"data.carry_state": False})
