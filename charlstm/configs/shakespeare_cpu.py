"""Shakespeare on two CPU cores in one hour.

charlstm train --config=shakespeare_cpu

Not yet run to its end.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(num_layers=2, hidden_size=512, alphabet="corpus"),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=64),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=7000, evaluate_every=1000, sample_every=1000),
    )
