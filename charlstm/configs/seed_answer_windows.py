"""The answer's model and optimizer, with windows of 32 time steps instead of one.

charlstm train --config=seed_answer_windows

An update reads 2,048 bytes instead of 64, and its gradient reaches back through the window.
`seed_answer` reads its 1.92 MB by update 938 of this; the run goes on for about as long as that one
takes.

Not yet run.
"""

from charlstm.config import Config
from charlstm.configs import seed_answer


def get_config() -> Config:
    """The configuration."""
    return seed_answer.get_config().replace(
        {
            "data.window_length": 32,
            "training.num_updates": 3000,
            "training.log_every": 10,
            "training.evaluate_every": 250,
            "training.sample_every": 250,
            "training.checkpoint_every": 125,
        }
    )
