"""Shakespeare on two CPU cores in one hour.

charlstm train --config=shakespeare_cpu

Result on two cores of an Intel Xeon with AVX-512 in 2,231 s: 1.956 bits per byte on the validation
split, 1.946 on the test split, 1.672 and 1.695 with `evaluate --dynamic`, of the checkpoint that is
best on validation, that at 9,000; at the end 1.964 on validation (jax 0.10.2, 2026-11-27). A run
that was cut after 2,074 updates and gone on with came to the same figures, to the last digit.

Without dropout as many updates, in 1,939 s, ended at 1.990, with 1.975 and 1.983 at best, 1.673 and
1.695 with `evaluate --dynamic`: up to 5,000 they were ahead (2.019 against 2.030).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(
            num_layers=2, hidden_size=512, alphabet="corpus", dropout=0.2, output_dropout=0.2
        ),
        data=DataConfig(corpus="shakespeare", num_streams=32, window_length=64),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=10_000, evaluate_every=1000, sample_every=1000),
    )
