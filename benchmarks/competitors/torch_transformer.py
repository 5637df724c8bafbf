"""Trains a small transformer in PyTorch with nanoGPT's recipes for characters, here on bytes.

The recipes are those of nanoGPT's README (https://github.com/karpathy/nanoGPT): `cpu` is the one
for a laptop, `gpu` that of `config/train_shakespeare_char.py`. Its number of updates is set by the
time that there is, and the learning rate decays over them, as there.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from benchmarks.competitors import Competitor, num_cores, versions_of


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Describes a transformer and how it is trained.

    Attributes:
      layers, heads, width: of the network.
      context: bytes that it sees.
      batch: windows of an update.
      dropout: of attention, of every block's output, and of the embeddings.
      warmup: updates.
    """

    layers: int
    heads: int
    width: int
    context: int
    batch: int
    dropout: float
    warmup: int = 100


RECIPES = {
    "cpu": Recipe(layers=4, heads=4, width=128, context=64, batch=12, dropout=0.0),
    "gpu": Recipe(layers=6, heads=6, width=384, context=256, batch=64, dropout=0.2),
}
_PEAK_RATE, _LAST_RATE = 1e-3, 1e-4
_BETAS, _WEIGHT_DECAY, _CLIP_NORM = (0.9, 0.99), 0.1, 1.0
# Updates of which none counts, and those that tell how long one takes.
_WARM_UP, _PROBE = 5, 20
_SCORED_AT_ONCE = 128  # windows


class Block(nn.Module):
    """Adds causal attention and a layer of 4 × width, each of normalized input."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        width = recipe.width
        self.heads, self.dropout = recipe.heads, recipe.dropout
        self.before_attention = nn.LayerNorm(width, bias=False)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.before_layer = nn.LayerNorm(width, bias=False)
        self.layer = nn.Linear(width, 4 * width, bias=False)
        self.layered = nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(recipe.dropout)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values [B, T, width] after the block."""
        batch, steps, width = values.shape
        parts = self.attention(self.before_attention(values))
        parts = parts.view(batch, steps, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, steps, width)
        values = values + self.drop(self.attended(mixed))
        hidden = nn.functional.gelu(self.layer(self.before_layer(values)))
        return values + self.drop(self.layered(hidden))


class Transformer(nn.Module):
    """Predicts the next byte; the head shares its weights with the embedding."""

    def __init__(self, recipe: Recipe, num_symbols: int):
        super().__init__()
        self.recipe = recipe
        self.symbols = nn.Embedding(num_symbols, recipe.width)
        self.places = nn.Embedding(recipe.context, recipe.width)
        self.drop = nn.Dropout(recipe.dropout)
        self.blocks = nn.ModuleList(Block(recipe) for _ in range(recipe.layers))
        self.last = nn.LayerNorm(recipe.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                ends_branch = name.endswith(("attended.weight", "layered.weight"))
                scale = 1 / math.sqrt(2 * recipe.layers) if ends_branch else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, T, V] of what follows each of symbols [B, T]; T ≤ context."""
        places = self.places.weight[: symbols.shape[1]]
        values = self.drop(self.symbols(symbols) + places)
        for block in self.blocks:
            values = block(values)
        return self.last(values) @ self.symbols.weight.T


class Training:
    """Trains a transformer for a time, and scores it.

    Args:
      recipe: of `RECIPES`.
      train, valid: uint8 [N], symbols.
      num_symbols: V.
      autocast: the dtype of products, or None.
      compiled: True to compile the network.
      seed: of the parameters, and of which windows are drawn.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: np.ndarray,
        valid: np.ndarray,
        num_symbols: int,
        *,
        autocast: torch.dtype | None,
        compiled: bool,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        self.recipe, self._autocast = recipe, autocast
        texts = (torch.from_numpy(text.astype(np.int64)) for text in (train, valid))
        self._train, self._valid = texts
        self.network = Transformer(recipe, num_symbols)
        self._run: Any = torch.compile(self.network) if compiled else self.network
        groups = [
            {"params": [w for w in self.network.parameters() if w.ndim >= 2]},
            {"params": [w for w in self.network.parameters() if w.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            groups, lr=_PEAK_RATE, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
        )
        self.updates = 0

    def update(self, planned: int) -> float:
        """Trains on windows drawn at random; returns the loss in nats.

        Args:
          planned: the number of the last update, at which the learning rate has decayed.
        """
        recipe = self.recipe
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(planned)
        begin = torch.randint(len(self._train) - recipe.context, (recipe.batch, 1))
        windows = self._train[begin + torch.arange(recipe.context + 1)]
        loss = self._nats(windows).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM, foreach=True)
        self._optimizer.step()
        self.updates += 1
        return loss.item()

    def bits_per_byte(self) -> float:
        """Scores the whole validation split but for its first byte.

        Every window begins half a context behind the one before, and only what the one before has
        not seen counts: every byte but the first ones has at least half a context before it.
        """
        context = self.recipe.context
        half = context // 2
        self.network.eval()
        text, total = self._valid, 0.0
        with torch.inference_mode():
            total += float(self._nats(text[None, : context + 1]).sum())
            scored = context
            begins = torch.arange(half, len(text) - context, half)
            for some in begins.split(_SCORED_AT_ONCE):
                nats = self._nats(text[some[:, None] + torch.arange(context + 1)])
                total += float(nats[:, context - half :].sum())
                scored += nats[:, context - half :].numel()
            left = len(text) - 1 - scored
            if left:
                total += float(self._nats(text[None, -context - 1 :])[:, -left:].sum())
        self.network.train()
        return total / (len(text) - 1) / math.log(2)

    def sampled_per_second(self, seconds: float = 1.0) -> float:
        """Returns how many bytes of one text are drawn in a second.

        As in nanoGPT, the whole context is computed for every byte: when it moves on, all places in
        it change.
        """
        self.network.eval()
        symbols = torch.zeros(1, self.recipe.context, dtype=torch.long)
        count, begin = 0, time.perf_counter()
        with torch.inference_mode():
            while (passed := time.perf_counter() - begin) < seconds:
                probabilities = torch.softmax(self.network(symbols)[0, -1], dim=-1)
                drawn = torch.multinomial(probabilities, 1)
                symbols = torch.cat([symbols[:, 1:], drawn[None]], dim=1)
                count += 1
        self.network.train()
        return count / passed

    def _nats(self, windows: torch.Tensor) -> torch.Tensor:
        """Returns the loss of each byte but the first of windows [B, T + 1]: float32 [B, T]."""
        run = self._run if self.network.training else self.network
        with torch.autocast("cpu", self._autocast, enabled=self._autocast is not None):
            logits = run(windows[:, :-1])
        return cross_entropy(logits.float().transpose(1, 2), windows[:, 1:], reduction="none")

    def _rate(self, planned: int) -> float:
        warmup = min(self.recipe.warmup, planned // 10)
        if self.updates < warmup:
            return _PEAK_RATE * (self.updates + 1) / (warmup + 1)
        done = min(1.0, (self.updates - warmup) / max(1, planned - warmup))
        return _LAST_RATE + (_PEAK_RATE - _LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares training; a run is one of `runs` parts of it, and is scored after its time.

    Args:
      spec: `recipe`, a key of `RECIPES`; `train` and `valid`, files of symbols; `num_symbols`;
        `seconds` of all training and in how many `runs`; optionally `dtype`, `compile`, `seed`.
    """
    torch.set_num_threads(num_cores())
    dtype = spec.get("dtype", "float32")
    train, valid = (np.fromfile(Path(spec[name]), np.uint8) for name in ("train", "valid"))
    begin = time.perf_counter()

    def new() -> Training:
        return Training(
            RECIPES[spec["recipe"]],
            train,
            valid,
            spec["num_symbols"],
            autocast=None if dtype == "float32" else getattr(torch, dtype),
            compiled=bool(spec.get("compile")),
            seed=spec.get("seed", 0),
        )

    training = new()
    for _ in range(_WARM_UP):
        training.update(_PROBE)
    start = time.perf_counter()
    for _ in range(_PROBE):
        training.update(_PROBE)
    seconds = (time.perf_counter() - start) / _PROBE
    training, trained = new(), 0.0
    training.update(_PROBE)  # compiles, where that is wanted
    training.updates = 0
    started = time.perf_counter() - begin
    of_run = max(1, int(spec["seconds"] / seconds / spec["runs"]))
    planned = of_run * spec["runs"]

    def run(count: int) -> dict[str, float]:
        nonlocal trained
        begin = time.perf_counter()
        for _ in range(count * of_run):
            nats = training.update(planned)
        trained += time.perf_counter() - begin
        figures = {"nats": nats, "updates": training.updates, "trained_seconds": trained}
        figures["sampled_per_second"] = training.sampled_per_second()
        return figures | {"bits_per_byte": training.bits_per_byte()}

    info = {
        "versions": versions_of("torch", "numpy"),
        "device": "cpu",
        "dtype": dtype,
        "compiled": bool(spec.get("compile")),
        "planned": planned,
        "bytes_of_update": training.recipe.batch * training.recipe.context,
        "parameters": sum(weight.numel() for weight in training.network.parameters()),
        "started_seconds": started,
    }
    return Competitor(run, info)
