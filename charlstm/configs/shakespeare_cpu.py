"""Shakespeare on two CPU cores in one hour.

charlstm train --config=shakespeare_cpu

Result on two cores of an AMD EPYC (Zen 3) in 2,895 s, some of them beside other work: 1.986 bits
per byte on the validation split, 1.952 on the test split, 1.706 there with `evaluate --dynamic`
(jax 0.10.2, 2026-11-24).

More updates alone gain nothing: 10,000 of them, in 2,044 s on two cores of an Intel Xeon (AVX-512),
end at 1.990 on validation; their best checkpoint, at 9,000, has 1.975 there and 1.983 on test,
1.673 and 1.695 with `evaluate --dynamic` (2026-11-27).
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
