"""Trains on Shakespeare's 37 plays on a GPU in five minutes.

charlstm train --config=shakespeare

The network is far larger than the text needs. Locked dropout and dropout of the recurrent weights
regularize it, and the averaged parameters are used.

Not yet run; only a smaller version was tried on a CPU.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(
            num_layers=2,
            hidden_size=1024,
            alphabet="corpus",
            dropout=0.3,
            output_dropout=0.3,
            dropout_kind="locked",
            weight_dropout=0.3,
        ),
        data=DataConfig(corpus="shakespeare", num_streams=128, window_length=128),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01, averaging="ema"),
        training=TrainingConfig(num_updates=12_000, evaluate_every=1000, sample_every=3000),
    )
