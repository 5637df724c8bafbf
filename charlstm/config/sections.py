"""The fields, section by section, with their defaults and the checks that a section makes alone."""

import dataclasses
from typing import Literal

from charlstm.config.checking import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The network."""

    num_layers: int = 2
    hidden_size: int = 256
    # Above 0: hidden_size becomes the largest with which the network has no more parameters than
    # this; a multiple of 8 and of mesh.model, of the latter alone where this is too few for 8.
    parameter_budget: float = 0.0
    # Size of the vectors that stand for symbols; 0: one-hot, the first layer has a row for each.
    embedding_size: int = 0
    # Layers normalise their pre-activations and cells (Ba, Kiros & Hinton 2016, eqs 20-22).
    layer_norm: bool = False
    # plain: each layer reads the one below, the head the top. residual: each layer above the first,
    # and the head, reads the sum of all below. skip: only the head does.
    connections: Literal["plain", "residual", "skip"] = "plain"
    # All 256 bytes, or only those that occur in the corpus.
    alphabet: Literal["bytes", "corpus"] = "bytes"
    # auto: bfloat16 on GPU and TPU, float32 on CPU. The cell state is float32 always.
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # The implementation of the time loop; auto chooses by device, hidden size and streams.
    # (split where mesh.model is above 1).
    recurrence: Literal[
        "auto", "scan", "scan_columns", "wavefront", "pallas_tpu", "cudnn", "split"
    ] = "auto"
    # wavefront: the time steps that a layer makes before the layer above follows.
    wavefront_chunk: int = 32
    # What a window keeps for its gradient: gates, which is fastest, or the state h and c alone, a
    # fraction of the memory for a third more arithmetic (recurrence auto or scan).
    residuals: Literal["gates", "state"] = "gates"
    # GPU: replay the training loop as a CUDA graph; auto does so where it was measured to help.
    command_buffers: Literal["auto", "on", "off"] = "auto"
    forget_bias: float = 1.0
    # Shares set to zero in training: of the values that pass from one layer to the next, of the
    # embedding's values (of symbols where there is none), of what the head reads.
    dropout: float = 0.0
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    # standard: a mask of its own for every time step; locked: one mask for a whole window.
    dropout_kind: Literal["standard", "locked"] = "standard"
    # Share of each weight_hh set to zero, anew for every update (DropConnect).
    weight_dropout: float = 0.0

    def validate(self) -> None:
        """Sizes are positive; dropout has layers to act between."""
        self.require("num_layers", self.num_layers >= 1, "1 or more")
        self.require("hidden_size", self.hidden_size >= 1, "1 or more")
        self.require("parameter_budget", self.parameter_budget >= 0, "0 (none) or more")
        self.require("wavefront_chunk", self.wavefront_chunk >= 1, "1 or more")
        self.require(
            "residuals",
            self.residuals == "gates" or self.recurrence in ("auto", "scan"),
            f"gates for model.recurrence={self.recurrence}: the scan alone can keep less",
        )
        self.require(
            "connections",
            self.connections == "plain" or self.num_layers > 1,
            "plain for a single layer (model.num_layers=2 or more has layers to connect)",
        )
        self.require(
            "recurrence",
            self.connections == "plain" or self.recurrence not in ("wavefront", "cudnn"),
            f"auto for model.connections={self.connections}: {self.recurrence} runs several layers "
            "at once, and nothing can come between them",
        )
        self.require(
            "recurrence",
            not self.layer_norm or self.recurrence == "auto",
            "auto for model.layer_norm=true, which has a recurrence of its own",
        )
        self.require(
            "residuals",
            not self.layer_norm or self.residuals == "gates",
            "gates for model.layer_norm=true, whose recurrence keeps what it needs",
        )
        self.require("embedding_size", self.embedding_size >= 0, "0 (one-hot) or more")
        for name in ("dropout", "input_dropout", "output_dropout", "weight_dropout"):
            self.require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self.require(
            "dropout",
            self.dropout == 0 or self.num_layers > 1,
            "0 for a single layer: dropout acts between layers (model.num_layers=2 or more)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The text and how it is cut into streams."""

    # A registered name, a file, a folder, a glob pattern, or - for standard input.
    corpus: str = "shakespeare"
    # Each a share of the text (below 1) or a number of bytes; taken from the text's end,
    # validation before test.
    valid_size: float = 0.05
    test_size: float = 0.05
    # B, the rows of the batch.
    num_streams: int = 64
    # T, the bytes of each stream that one update sees.
    window_length: int = 64
    # Whether a window goes on from the state that the one before it left in its stream; if not, the
    # state is zero before every window, in training and wherever the model is used.
    carry_state: bool = True

    @property
    def reset_every(self) -> int:
        """The bytes after which the state is zero again; 0 where it is carried on for ever."""
        return 0 if self.carry_state else self.window_length

    def validate(self) -> None:
        """Sizes are positive."""
        self.require("num_streams", self.num_streams >= 1, "1 or more")
        self.require("window_length", self.window_length >= 1, "1 or more")
        for name in ("valid_size", "test_size"):
            size = getattr(self, name)
            whole = size >= 1 and float(size).is_integer()
            self.require(name, 0 <= size < 1 or whole, "a share below 1 or a whole number of bytes")
        self.require("valid_size", self.valid_size > 0, "above 0: quality is measured on it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    """How gradients become updates."""

    name: Literal["adamw", "adam", "rmsprop", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    # Decay rates of the moment estimates: adam and adamw use both, rmsprop the second.
    b1: float = 0.9
    b2: float = 0.99
    # sgd only.
    momentum: float = 0.9
    epsilon: float = 1e-8
    # Weight decay per unit of learning rate; biases are spared. adamw and sgd only.
    weight_decay: float = 0.0
    # Largest global norm of the gradient; 0 switches clipping off.
    clip_norm: float = 1.0
    # What is validated, sampled and kept for use: the last parameters (none), their exponential
    # moving average, or their mean from the update on at which the validation stalled.
    averaging: Literal["none", "ema", "triggered"] = "none"
    # ema: the share of the average that an update leaves; less in the first updates.
    ema_decay: float = 0.999
    # triggered: the validation has stalled when it is worse than the best of those that are more
    # than so many validations old.
    averaging_patience: int = 5
    schedule: Literal["constant", "cosine", "linear", "step"] = "cosine"
    # Updates over which the rate rises linearly from 0.
    warmup_updates: int = 100
    # cosine, linear: the rate at the last update, as a share of learning_rate.
    final_fraction: float = 0.02
    # step: the rate is multiplied by step_factor every step_updates updates,
    # the first time after step_start of them.
    step_start: int = 0
    step_updates: int = 1000
    step_factor: float = 0.97

    def validate(self) -> None:
        """Rates and factors are in their ranges."""
        self.require("learning_rate", self.learning_rate > 0, "above 0")
        for name in ("b1", "b2", "momentum"):
            self.require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self.require("epsilon", self.epsilon > 0, "above 0")
        self.require("weight_decay", self.weight_decay >= 0, "0 or more")
        self.require(
            "weight_decay",
            self.weight_decay == 0 or self.name in ("adamw", "sgd"),
            f"0 for optimizer.name={self.name}: adamw and sgd have weight decay",
        )
        self.require("clip_norm", self.clip_norm >= 0, "0 (off) or more")
        self.require("ema_decay", 0 <= self.ema_decay < 1, "at least 0 and below 1")
        self.require("averaging_patience", self.averaging_patience >= 1, "1 or more")
        self.require("warmup_updates", self.warmup_updates >= 0, "0 or more")
        self.require("final_fraction", 0 <= self.final_fraction <= 1, "from 0 to 1")
        self.require("step_start", self.step_start >= 0, "0 or more")
        self.require("step_updates", self.step_updates >= 1, "1 or more")
        self.require("step_factor", 0 < self.step_factor <= 1, "above 0 and at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """The length and the rhythm of a run. Intervals count updates; 0 means never."""

    num_updates: int = 5000
    seed: int = 0
    log_every: int = 50
    evaluate_every: int = 500
    sample_every: int = 1000
    checkpoint_every: int = 500
    # Save also when so many seconds have passed since the last save; 0 means never.
    checkpoint_seconds: float = 600.0
    # Checkpoints kept: the last few, the best by validation bits per byte, and one
    # every keep_every updates for good.
    keep_last: int = 2
    keep_every: int = 0
    # Added to the loss, not to what is reported: this times the mean square of what the head reads
    # (AR), and this times that of its differences from one time step to the next (TAR).
    activation_regularization: float = 0.0
    temporal_activation_regularization: float = 0.0
    # Updates in one jitted call; 0 chooses as many as take about half a second.
    updates_per_dispatch: int = 0
    # Updates skipped in a row, for a loss or gradient that is not finite, that end the run.
    max_skipped_in_a_row: int = 50

    def validate(self) -> None:
        """Counts are not negative."""
        self.require("num_updates", self.num_updates >= 1, "1 or more")
        self.require("seed", 0 <= self.seed < 2**32, "from 0 to 4294967295")
        self.require("log_every", self.log_every >= 1, "1 or more")
        self.require("keep_last", self.keep_last >= 1, "1 or more")
        self.require("max_skipped_in_a_row", self.max_skipped_in_a_row >= 1, "1 or more")
        for name in ("evaluate_every", "sample_every", "checkpoint_every", "keep_every"):
            self.require(name, getattr(self, name) >= 0, "0 (never) or more")
        for name in ("activation_regularization", "temporal_activation_regularization"):
            self.require(name, getattr(self, name) >= 0, "0 (none) or more")
        self.require("checkpoint_seconds", self.checkpoint_seconds >= 0, "0 (never) or more")
        self.require("updates_per_dispatch", self.updates_per_dispatch >= 0, "0 (auto) or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(Section):
    """How devices share the work. What is computed does not depend on it."""

    # Devices that share the streams out among them; 0: all that model leaves.
    data: int = 0
    # Devices that share each layer's hidden units, for models too large for one device.
    model: int = 1
    # What every device of the axis data keeps a share of only, for less memory and more traffic:
    # the optimizer's state (as ZeRO's first stage), or the parameters as well (as its third, FSDP).
    shard: Literal["nothing", "optimizer", "parameters"] = "nothing"

    def validate(self) -> None:
        """Counts are possible."""
        self.require("data", self.data >= 0, "0 (all that remain) or more")
        self.require("model", self.model >= 1, "1 or more")
