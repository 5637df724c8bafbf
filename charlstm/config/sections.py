"""Defines the sections of a configuration: their fields, and the checks within one section.

Each field is declared as `name: type = field(default, meaning)`. The meanings make up
docs/configuration.md and `charlstm train --help`, see `charlstm.config.reference`. They name other
fields by address, `section.field`.
"""

import dataclasses
from typing import Literal

from charlstm.config.checking import ABOVE_0, FRACTION, Bound, Section, at_least, at_most, field

SPLIT_SIZE = Bound(
    lambda v: 0 <= v < 1 or (float(v).is_integer() and v >= 1),
    "a fraction below 1 or a whole number of bytes",
)
QUALITY = Bound(lambda v: v > 0, "above 0: quality is measured on it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Defines the network: its size, its structure and its dropout."""

    num_layers: int = field(2, "Number of LSTM layers.", at_least(1), at_most(64))
    hidden_size: int = field(256, "Number of cells in each layer, H.", at_least(1), at_most(2**20))
    parameter_budget: float = field(
        0.0,
        "Above 0, chooses model.hidden_size: the largest multiple of 8 and of mesh.model that "
        "gives the network at most this many parameters. A budget too small for that takes the "
        "largest multiple of mesh.model. 0: model.hidden_size stays as it is.",
        at_least(0, "none"),
    )
    embedding_size: int = field(
        0,
        "Size of the vectors that represent symbols in the input. 0 uses no embedding: symbols are "
        "one-hot vectors, and the first layer has a row of weights for each symbol.",
        at_least(0, "one-hot"),
        at_most(2**20),
    )
    layer_norm: bool = field(
        False,
        "Applies layer normalization to the pre-activations and the cell states of every layer "
        "(Ba, Kiros and Hinton 2016, equations 20 to 22).",
    )
    connections: Literal["plain", "residual", "skip"] = field(
        "plain",
        "What the layers and the output head read. plain: each layer reads the layer below, and "
        "the head reads the top layer. residual: each layer above the first, and the head, reads "
        "the sum of all layers below. skip: as plain, but the head reads the sum of all layers.",
    )
    alphabet: Literal["bytes", "corpus"] = field(
        "bytes",
        "Symbols that the model knows. bytes: all 256 bytes. corpus: only the bytes that occur in "
        "the corpus.",
    )
    compute_dtype: Literal["auto", "float32", "bfloat16"] = field(
        "auto",
        "Data type of the matrix products. auto: bfloat16 on GPU, TPU and, from a hidden size of "
        "128 on, on a CPU with AMX; float32 on any other CPU. "
        "Parameters, cell states and losses are float32 in any case.",
    )
    recurrence: Literal[
        "auto",
        "scan",
        "scan_columns",
        "wavefront",
        "pallas_tpu",
        "pallas_gpu",
        "cudnn",
        "split",
    ] = field(
        "auto",
        "Implementation of the time loop. auto chooses by device, model.hidden_size and "
        "data.num_streams. scan: layer by layer, on any device. scan_columns: the same with "
        "streams as columns, for CPUs. wavefront: all layers at once, each some time steps behind "
        "the layer below. pallas_tpu: one TPU kernel for each layer. pallas_gpu: one kernel of an "
        "H100, H200 or GH200 for each layer, in bfloat16, for multiples of 64 streams on each "
        "device; an experiment that has not yet been shown to be right or fast. cudnn: NVIDIA's "
        "library, for comparison. split: hidden units split over devices, which auto chooses for "
        "mesh.model above 1.",
    )
    wavefront_chunk: int = field(
        32,
        "For model.recurrence=wavefront: number of time steps by which each layer runs behind the "
        "layer below.",
        at_least(1),
    )
    residuals: Literal["gates", "state"] = field(
        "gates",
        "What a window keeps in memory for its gradient. gates is the fastest. state keeps only h "
        "and c, which takes a fraction of the memory and about a third more arithmetic; it needs "
        "model.recurrence=auto or scan.",
    )
    command_buffers: Literal["auto", "on", "off"] = field(
        "auto",
        "Whether a GPU replays the training loop as a CUDA graph instead of launching each kernel. "
        "auto: only where that was measured to be faster.",
    )
    forget_bias: float = field(1.0, "Initial value of the biases of the forget gates.")
    dropout: float = field(
        0.0,
        "Fraction of the values passed from one layer to the next that training sets to zero.",
        FRACTION,
    )
    input_dropout: float = field(
        0.0,
        "Fraction of the input that training sets to zero: of the embedding's values, or of whole "
        "symbols if model.embedding_size=0.",
        FRACTION,
    )
    output_dropout: float = field(
        0.0, "Fraction of the values read by the output head that training sets to zero.", FRACTION
    )
    dropout_kind: Literal["standard", "locked"] = field(
        "standard",
        "Dropout masks over time. standard: a new mask for every time step. locked: one mask for "
        "all time steps of a window.",
    )
    weight_dropout: float = field(
        0.0,
        "Fraction of each layer's recurrent weights that training sets to zero, drawn anew for "
        "every update (DropConnect).",
        FRACTION,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Defines the text, its splits, and how it is cut into streams and windows."""

    corpus: str = field(
        "shakespeare",
        "Text to train on: a registered name (charlstm corpora lists them), a file, a folder, a "
        "glob pattern, or - for standard input.",
    )
    valid_size: float = field(
        0.05,
        "Size of the validation split: a fraction of the text if below 1, else a number of bytes. "
        "It lies near the end of the text, before the test split.",
        SPLIT_SIZE,
        QUALITY,
    )
    test_size: float = field(
        0.05,
        "Size of the test split: a fraction of the text if below 1, else a number of bytes. It is "
        "the end of the text.",
        SPLIT_SIZE,
    )
    num_streams: int = field(
        64,
        "Number of streams, places in the text that are read in parallel: the batch size, B.",
        at_least(1),
        at_most(2**24),
    )
    window_length: int = field(
        64,
        "Number of bytes of each stream that one update reads, T. Gradients reach back over at "
        "most this many time steps.",
        at_least(1),
        at_most(2**24),
    )
    carry_state: bool = field(
        True,
        "true: each window starts from the state at the end of the window before it in its stream. "
        "false: the state is zero at the start of every window, in training and wherever the model "
        "is used.",
    )

    @property
    def reset_every(self) -> int:
        """Returns the number of bytes between resets of the state to zero; 0 if it is carried."""
        return 0 if self.carry_state else self.window_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    """Defines the optimizer, the learning-rate schedule and parameter averaging."""

    name: Literal["adamw", "adam", "rmsprop", "sgd"] = field(
        "adamw", "Optimization algorithm; sgd is SGD with momentum."
    )
    learning_rate: float = field(
        2e-3, "Learning rate at the end of the warmup, where the schedule starts.", ABOVE_0
    )
    b1: float = field(
        0.9, "Decay rate of the first-moment estimate; adamw and adam only.", FRACTION
    )
    b2: float = field(
        0.99, "Decay rate of the second-moment estimate; adamw, adam and rmsprop only.", FRACTION
    )
    momentum: float = field(0.9, "Momentum; sgd only.", FRACTION)
    epsilon: float = field(
        1e-8,
        "Small constant that keeps denominators above zero; adamw, adam and rmsprop only.",
        ABOVE_0,
    )
    weight_decay: float = field(
        0.0,
        "Weight decay per unit of learning rate; adamw and sgd only. Biases do not decay.",
        at_least(0),
    )
    clip_norm: float = field(
        1.0,
        "Gradients with a larger global norm are scaled down to this norm. 0: no clipping.",
        at_least(0, "off"),
    )
    averaging: Literal["none", "ema", "triggered"] = field(
        "none",
        "Parameters that are validated, sampled and kept for use. none: the current parameters. "
        "ema: their exponential moving average. triggered: the current parameters until validation "
        "stalls, from then on their mean over updates.",
    )
    ema_decay: float = field(
        0.999,
        "For optimizer.averaging=ema: fraction of the average that an update keeps; less in the "
        "first updates.",
        FRACTION,
    )
    averaging_patience: int = field(
        5,
        "For optimizer.averaging=triggered: validation has stalled when its result is worse than "
        "the best of all earlier ones, not counting this many most recent ones.",
        at_least(1),
    )
    schedule: Literal["constant", "cosine", "linear", "step"] = field(
        "cosine",
        "Course of the learning rate after the warmup. constant: no change. cosine and linear: a "
        "decay to optimizer.final_fraction of optimizer.learning_rate at the last update. step: a "
        "multiplication by optimizer.step_factor every optimizer.step_updates updates.",
    )
    warmup_updates: int = field(
        100,
        "Number of updates over which the learning rate rises linearly from near 0.",
        at_least(0),
    )
    final_fraction: float = field(
        0.02,
        "For optimizer.schedule=cosine or linear: learning rate at the last update, as a fraction "
        "of optimizer.learning_rate.",
        Bound(lambda v: 0 <= v <= 1, "from 0 to 1"),
    )
    step_start: int = field(
        0,
        "For optimizer.schedule=step: number of updates after the warmup at which the first "
        "interval of optimizer.step_updates starts.",
        at_least(0),
    )
    step_updates: int = field(
        1000,
        "For optimizer.schedule=step: number of updates in an interval with the same rate.",
        at_least(1),
    )
    step_factor: float = field(
        0.97,
        "For optimizer.schedule=step: factor on the learning rate at the end of each interval.",
        Bound(lambda v: 0 < v <= 1, "above 0 and at most 1"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """Defines the length of a run, and how often it logs, evaluates, samples and saves."""

    num_updates: int = field(5000, "Number of parameter updates in the run.", at_least(1))
    seed: int = field(
        0,
        "Seed of the initial parameters, of dropout and of samples during training.",
        Bound(lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    )
    log_every: int = field(
        50, "Number of updates from one line of metrics to the next.", at_least(1)
    )
    evaluate_every: int = field(
        500,
        "Number of updates from one validation to the next. The last update is validated in any "
        "case; 0: only that one.",
        at_least(0, "never"),
    )
    sample_every: int = field(
        1000,
        "Number of updates from one sample to the next. The first line of metrics and the last "
        "update come with a sample too. 0: no samples during training.",
        at_least(0, "never"),
    )
    checkpoint_every: int = field(
        500,
        "Number of updates from one checkpoint to the next. Every validation and the end of the "
        "run save one too; 0: only those and training.checkpoint_seconds.",
        at_least(0, "never"),
    )
    checkpoint_seconds: float = field(
        600.0,
        "Seconds after a save at which another checkpoint is saved, if none was in between. 0: "
        "never.",
        at_least(0, "never"),
    )
    keep_last: int = field(
        2,
        "Number of most recent checkpoints to keep. The one with the best validation is kept in "
        "any case.",
        at_least(1),
    )
    keep_every: int = field(
        0,
        "Checkpoints at multiples of this many updates are kept permanently. 0: none.",
        at_least(0, "never"),
    )
    activation_regularization: float = field(
        0.0,
        "Adds this many times the mean square of the output head's input to the training loss "
        "(AR). Reported losses leave it out.",
        at_least(0, "none"),
    )
    temporal_activation_regularization: float = field(
        0.0,
        "Adds this many times the mean square of the difference between the output head's inputs "
        "at successive time steps to the training loss (TAR). Reported losses leave it out.",
        at_least(0, "none"),
    )
    updates_per_dispatch: int = field(
        0,
        "Number of updates in one call of the jitted program. 0: as many as fill about 0.5 s.",
        at_least(0, "auto"),
    )
    max_skipped_in_a_row: int = field(
        50,
        "An update whose loss or gradient is not finite is skipped. The run fails after this many "
        "skipped updates in a row.",
        at_least(1),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(Section):
    """Defines how devices share the work; results do not depend on it."""

    data: int = field(
        0,
        "Number of devices over which streams are split. 0: all that mesh.model leaves.",
        at_least(0, "all that remain"),
    )
    model: int = field(
        1,
        "Number of devices over which the hidden units of each layer are split, for models too "
        "large for one device.",
        at_least(1),
    )
    shard: Literal["nothing", "optimizer", "parameters"] = field(
        "nothing",
        "What is split over the devices of mesh.data instead of copied to each, which saves memory "
        "and costs communication. optimizer: the optimizer's state (ZeRO stage 1). parameters: the "
        "parameters too (ZeRO stage 3, FSDP).",
    )
