"""A small model of Shakespeare on two CPU cores.

charlstm train --config=quickstart
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(num_layers=1, hidden_size=256),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=64),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=3000, evaluate_every=500, sample_every=1000),
    )
