"""Trains on enwik8 on a GPU in half an hour: 90 MB for training, 5 for validation, 5 for test.

charlstm train --config=enwik8
charlstm evaluate --checkpoint=runs/enwik8 --split=test --dynamic

Three layers with 48 million parameters, a size that is usual in the literature.

Not yet run; only a smaller version was tried on a CPU.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(
            num_layers=3,
            parameter_budget=48e6,
            dropout=0.1,
            output_dropout=0.1,
            dropout_kind="locked",
            weight_dropout=0.1,
        ),
        data=DataConfig(
            corpus="enwik8",
            valid_size=5_000_000,
            test_size=5_000_000,
            num_streams=256,
            window_length=128,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.01, averaging="ema"),
        training=TrainingConfig(
            num_updates=60_000, evaluate_every=3000, sample_every=10_000, checkpoint_every=3000
        ),
    )
