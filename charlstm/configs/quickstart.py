"""A small model of Shakespeare, for two CPU cores and two to three minutes.

charlstm train --config=quickstart

RESULT
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(num_layers=1, hidden_size=256, alphabet="corpus"),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=32),
        optimizer=OptimizerConfig(learning_rate=1.2e-2, weight_decay=0.01, clip_norm=0.25),
        training=TrainingConfig(num_updates=5500, evaluate_every=1100, sample_every=1100),
    )
