"""A small model of Shakespeare, for two CPU cores and two to three minutes.

charlstm train --config=quickstart

Result on two cores of an AMD EPYC (Zen 3) in 127 s: 2.173 bits per byte on the validation split,
2.193 on the test split (jax 0.10.2, 2026-11-24).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(num_layers=1, hidden_size=256),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=64),
        optimizer=OptimizerConfig(learning_rate=8e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=2500, evaluate_every=500, sample_every=500),
    )
