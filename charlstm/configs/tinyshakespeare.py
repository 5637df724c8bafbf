"""Trains on the usual 1.1 MB of Shakespeare on a GPU, with the last tenth held out.

charlstm train --config=tinyshakespeare

The text is small. So half of the values between the layers are dropped, and the averaged parameters
of the best validation are the ones to use.

Not yet run; only a smaller version was tried on a CPU.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(
            num_layers=2,
            hidden_size=512,
            alphabet="corpus",
            input_dropout=0.1,
            dropout=0.5,
            output_dropout=0.5,
            dropout_kind="locked",
            weight_dropout=0.5,
        ),
        data=DataConfig(
            corpus="tinyshakespeare",
            valid_size=111_540,
            test_size=0,
            num_streams=64,
            window_length=128,
        ),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.05, averaging="ema"),
        training=TrainingConfig(num_updates=8000, evaluate_every=500, sample_every=2000),
    )
