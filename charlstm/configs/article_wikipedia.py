"""The article's Wikipedia: 96 MB of enwik8 to train on, 4 MB held out.

charlstm train --config=article_wikipedia

3 layers of 512, trained as char-rnn trains: twenty epochs.

Not yet run to its end.
"""

from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.configs.article_shakespeare import char_rnn_optimizer

UPDATES_PER_EPOCH = 9600  # 96 MB of training text in updates of 100 × 100 bytes


def get_config() -> Config:
    """The configuration."""
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
