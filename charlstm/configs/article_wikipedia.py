"""Trains on 96 MB of Wikipedia (enwik8) with 4 MB held out, with the settings of char-rnn.

charlstm train --config=article_wikipedia

One of the experiments of Karpathy's article of 2015, "The Unreasonable Effectiveness of Recurrent
Neural Networks" (https://karpathy.github.io/2015/05/21/rnn-effectiveness/); char-rnn is its code.

3 layers of 512, twenty epochs.

Not yet run to its end.
"""

from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.configs.article_shakespeare import char_rnn_optimizer

UPDATES_PER_EPOCH = 9600  # 96 MB of training text in updates of 100 × 100 bytes


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=3, hidden_size=512),
        data=DataConfig(
            corpus="enwik8", valid_size=4e6, test_size=0, num_streams=100, window_length=100
        ),
        optimizer=char_rnn_optimizer(UPDATES_PER_EPOCH),
        training=TrainingConfig(
            num_updates=20 * UPDATES_PER_EPOCH, evaluate_every=UPDATES_PER_EPOCH // 2
        ),
    )
