"""Trains 3 × LSTM(1024) on one time step per update, as an answer to a question advised.

charlstm train --config=seed_answer

The question is that of `seed_question`: 2 × LSTM(128) that stalled at 30 % accuracy. The answer is
the advice of 3 × LSTM(1024), only the bytes that occur, batch 64, and sampling with a temperature.
Its other settings: 30,000 updates, which read 1.92 MB, Adam with learning rate 0.001, no clipping,
no schedule.

Result on two cores of an Intel Xeon (AVX-512) in 2,451 s: 2.560 bits per byte on the validation
split. It has 2.555 at update 10,000, and at best 2.525, at update 20,000 (float32, jax 0.10.2,
2026-11-27).
"""

from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.configs.seed_question import KERAS_ADAM


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=3, hidden_size=1024, alphabet="corpus"),
        data=DataConfig(corpus="shakespeare", num_streams=64, window_length=1),
        optimizer=KERAS_ADAM,
        training=TrainingConfig(
            num_updates=30_000,
            log_every=100,
            evaluate_every=5000,
            sample_every=5000,
            checkpoint_every=2500,
        ),
    )
