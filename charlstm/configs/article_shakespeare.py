"""Trains 3 layers of 512 on Shakespeare with the settings of char-rnn.

charlstm train --config=article_shakespeare

One of the experiments of Karpathy's article of 2015, "The Unreasonable Effectiveness of Recurrent
Neural Networks" (https://karpathy.github.io/2015/05/21/rnn-effectiveness/); char-rnn is its code.

RMSProp with learning rate 0.002 and decay 0.95, batch 50, windows of 50, fifty epochs. After ten
epochs the learning rate falls to 97 % every epoch. Gradients are clipped by their global norm;
char-rnn clips each number.

Not yet run to its end. At update 2,000 of 87,100 (`--stop_after=2000`), after 956 s on two cores of
an Intel Xeon (AVX-512): 2.144 bits per byte on the validation split (float32, jax 0.10.2,
2026-11-27).
"""

from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

UPDATES_PER_EPOCH = 1742  # 4.36 MB of training text in updates of 50 × 50 bytes


def get_config() -> Config:
    """Returns the configuration."""
    return Config(
        model=ModelConfig(num_layers=3, hidden_size=512, alphabet="corpus"),
        data=DataConfig(corpus="shakespeare", num_streams=50, window_length=50),
        optimizer=char_rnn_optimizer(UPDATES_PER_EPOCH),
        training=TrainingConfig(
            num_updates=50 * UPDATES_PER_EPOCH,
            evaluate_every=1000,
            sample_every=100,
            checkpoint_every=500,
        ),
    )


def char_rnn_optimizer(updates_per_epoch: int) -> OptimizerConfig:
    """Returns char-rnn's default optimizer for a text of `updates_per_epoch` updates."""
    return OptimizerConfig(
        name="rmsprop",
        learning_rate=2e-3,
        b2=0.95,
        clip_norm=5.0,
        schedule="step",
        step_start=10 * updates_per_epoch,
        step_updates=updates_per_epoch,
        step_factor=0.97,
        warmup_updates=0,
    )
