r"""Trains a model on first names, one a line; it then makes up new ones.

charlstm train --config=article_names
charlstm sample --checkpoint=runs/article_names --prompt=$'\n' --num_bytes=200

One of the experiments of Karpathy's article of 2015, "The Unreasonable Effectiveness of Recurrent
Neural Networks" (https://karpathy.github.io/2015/05/21/rnn-effectiveness/).

The text is small, 5,163 names in 36 kB. So there is dropout between the layers, and the checkpoint
with the best validation is the one to use.

Result on two cores of an Intel Xeon (AVX-512) in 21 s: 2.771 bits per byte on the validation split,
best at update 650. From update 800 on charlstm reports overfitting (float32, jax 0.10.2,
2026-11-27).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=2, hidden_size=128, alphabet="corpus", dropout=0.5),
        data=DataConfig(corpus="names", num_streams=32, window_length=32),
        optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.1),
        training=TrainingConfig(num_updates=1500, evaluate_every=50, sample_every=500),
    )
