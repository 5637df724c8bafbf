"""Trains the model of `seed_answer` on windows of 32 time steps instead of one.

charlstm train --config=seed_answer_windows

The optimizer is the same: that of the answer, the advice that `seed_answer` follows. An update
reads 2,048 bytes instead of 64, and its gradient reaches back through the window. 938 updates read
the 1.92 MB of `seed_answer`; these 1,250 take little more than half of its time.

Result on two cores of an Intel Xeon (AVX-512) in 1,333 s: 2.239 bits per byte on the validation
split; after 237 s it has 2.530, less than `seed_answer` at its end (float32, jax 0.10.2,
2026-11-27).
"""

from charlstm.config import Config
from charlstm.configs import seed_answer


def get_config() -> Config:
    """Returns the configuration."""
    return seed_answer.get_config().replace(
        {
            "data.window_length": 32,
            "training.num_updates": 1250,
            "training.log_every": 10,
            "training.evaluate_every": 250,
            "training.sample_every": 250,
            "training.checkpoint_every": 125,
        }
    )
