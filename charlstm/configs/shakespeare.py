"""Shakespeare's 37 plays on a GPU, for five minutes.

charlstm train --config=shakespeare

A network far larger than the text asks for, held back by locked dropout and by dropped recurrent
weights, and averaged.

Not yet run; rehearsed small on a CPU.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
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
