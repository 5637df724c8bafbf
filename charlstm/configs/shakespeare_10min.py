"""Trains on Shakespeare in about ten minutes on two CPU cores with AMX.

charlstm train --config=shakespeare_10min
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(
            num_layers=2, hidden_size=384, alphabet="corpus", dropout=0.1, output_dropout=0.1
        ),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=64),
        optimizer=OptimizerConfig(learning_rate=5e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=8000, evaluate_every=1000, sample_every=1000),
    )
