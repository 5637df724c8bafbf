"""Trains 2 × LSTM(128) on one time step per update, with all 256 bytes and the state carried.

charlstm train --config=seed_question

The question is about an attempt with this model that stalled at 30 % accuracy. It was to reproduce
the article, Karpathy's "The Unreasonable Effectiveness of Recurrent Neural Networks" of 2015
(https://karpathy.github.io/2015/05/21/rnn-effectiveness/). `seed_answer` follows the advice that it
got. REPRODUCTION.md compares them.

Settings of the attempt: batch 32, Adam with learning rate 0.001, no clipping, no schedule. The
gradient never reaches back through time, but the state is carried from update to update. 60,000
updates read 1.92 MB.

Result on two cores of an Intel Xeon (AVX-512) in 73 s: 2.580 bits per byte (1.788 nats) on the
validation split, whose 4-gram level is 2.595 (float32, jax 0.10.2, 2026-11-27).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

# Keras's default Adam, which both the question's and the answer's script used.
KERAS_ADAM = OptimizerConfig(
    name="adam",
    learning_rate=1e-3,
    b1=0.9,
    b2=0.999,
    epsilon=1e-7,
    clip_norm=0.0,
    schedule="constant",
    warmup_updates=0,
)


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=2, hidden_size=128),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=1),
        optimizer=KERAS_ADAM,
        training=TrainingConfig(
            num_updates=60_000,
            log_every=500,
            evaluate_every=5000,
            sample_every=10_000,
            checkpoint_every=10_000,
        ),
    )
