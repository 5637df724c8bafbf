r"""The article's names: one a line, and the network makes up new ones.

charlstm train --config=article_names
charlstm sample --checkpoint=runs/article_names --prompt=$'\n' --num_bytes=200

The text is small, 5,163 first names in 36 kB: dropout between the layers, and the best checkpoint
by validation is the one that counts.

Result on two cores of an Intel Xeon (AVX-512) in 21 s: 2.771 bits per byte on the validation split,
best at update 650; from 800 on charlstm says that it learns the names by heart (jax 0.10.2,
2026-11-27).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """The configuration."""
    return Config(
        model=ModelConfig(num_layers=2, hidden_size=128, alphabet="corpus", dropout=0.5),
        data=DataConfig(corpus="names", num_streams=32, window_length=32),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.1),
        training=TrainingConfig(num_updates=1500, evaluate_every=50, sample_every=500),
    )
