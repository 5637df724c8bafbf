"""Trains a model of about ten million parameters on C sources of Linux.

apt-get download linux-source-6.1
dpkg-deb -x linux-source-6.1_*.deb linux && tar -C linux -xf linux/usr/src/linux-source-6.1.tar.xz
charlstm train --config=article_linux --corpus='linux/linux-source-6.1/kernel/**/*.[ch]'

One of the experiments of Karpathy's article of 2015, "The Unreasonable Effectiveness of Recurrent
Neural Networks" (https://karpathy.github.io/2015/05/21/rnn-effectiveness/).

The folder `kernel/` has about ten megabytes; 'linux/linux-source-6.1/**/*.[ch]' takes all sources.

Not yet run.
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=3, parameter_budget=10e6),
        data=DataConfig(
            corpus="linux/linux-source-6.1/kernel/**/*.[ch]", num_streams=100, window_length=100
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.01),
        training=TrainingConfig(num_updates=50_000, evaluate_every=1000, sample_every=1000),
    )
