"""Resuming a run, or starting from another one: what must be the same, and what is taken along."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from charlstm.checkpoint import shipped
from charlstm.checkpoint.metadata import Metadata, read_metadata
from charlstm.checkpoint.reading import MODEL_ITEMS, metadata_of, read_params, resolve
from charlstm.config import Config, OptimizerConfig
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.errors import UserError
from charlstm.model.parameters import Params
from charlstm.model.size import within_budget
from charlstm.runtime import coordination, meshes
from charlstm.storage import paths
from charlstm.training.optimizer import make_optimizer
from charlstm.training.train_state import TrainState, keys

# Fields that may change when a run is resumed without a word: what is computed stays the same.
FREE_FIELDS = frozenset(
    {
        "data.corpus",  # the bytes themselves are compared
        "training.log_every",
        "training.evaluate_every",
        "training.sample_every",
        "training.checkpoint_every",
        "training.checkpoint_seconds",
        "training.keep_last",
        "training.keep_every",
        "training.updates_per_dispatch",
        "training.max_skipped_in_a_row",
        # How it is computed, up to rounding.
        "model.command_buffers",
        "model.recurrence",
        "model.wavefront_chunk",
        "model.residuals",
        # Which devices compute it does not change what is computed.
        "mesh.data",
        "mesh.model",
        "mesh.shard",
    }
)

# Fields that a resumed run may change for the updates that follow, for they leave the shapes of its
# state and its places in the text as they are. Every change is logged and recorded. A change of any
# field that is in neither set makes it another run.
CHANGEABLE_FIELDS = frozenset(
    {
        "training.num_updates",
        "training.seed",
        "training.activation_regularization",
        "training.temporal_activation_regularization",
        "optimizer.learning_rate",
        "optimizer.b1",
        "optimizer.b2",
        "optimizer.momentum",
        "optimizer.epsilon",
        "optimizer.weight_decay",
        "optimizer.clip_norm",
        "optimizer.ema_decay",
        "optimizer.averaging_patience",
        "optimizer.schedule",
        "optimizer.warmup_updates",
        "optimizer.final_fraction",
        "optimizer.step_start",
        "optimizer.step_updates",
        "optimizer.step_factor",
        "model.dropout",
        "model.input_dropout",
        "model.output_dropout",
        "model.weight_dropout",
        "model.dropout_kind",
        "model.compute_dtype",
    }
)


_INIT_FROM = (
    "--init_from={} begins a new run there from these weights, at update 0 and with a new state of "
    "the optimizer; the model's sizes and alphabet must be the same"
)


def sized(config: Config, alphabet: Alphabet, saved: Config | None) -> Config:
    """Returns the configuration with the hidden size that its parameter budget means.

    A resumed run keeps the size it began with, on whatever devices; `saved` is its
    configuration.

    Raises:
      UserError: the budget is too small.
    """
    budget = config.model.parameter_budget
    if saved is not None and budget and saved.model.parameter_budget == budget:
        if saved.model.hidden_size % config.mesh.model:
            raise UserError(
                f"mesh.model={config.mesh.model} must divide the hidden size of "
                f"{saved.model.hidden_size} that the run began with: set another"
            )
        return config.replace({"model.hidden_size": saved.model.hidden_size})
    return within_budget(config, alphabet.size)


def alphabet_of(config: Config, corpus: Corpus, saved: Metadata | None) -> Alphabet:
    """Returns the alphabet of a run: that of its checkpoints, or of its text if it has none.

    An imported model may know more bytes than the text that it is trained on.

    Args:
      config: of the run.
      corpus: its text.
      saved: the metadata of its newest checkpoint.

    Raises:
      UserError: an imported model does not know a byte of the text.
    """
    kind = config.model.alphabet
    if saved is None or saved.config.model.alphabet != kind:
        return Alphabet.of(kind, corpus.data)
    if saved.corpus["sha256"] == corpus.sha256:
        return saved.alphabet
    found = Alphabet.of(kind, corpus.data)
    if not saved.is_imported:  # it goes on with another text, and will be refused
        return found
    unknown = sorted(set(found.symbols) - set(saved.alphabet.symbols))
    if unknown:
        shown = ", ".join(f"{byte:#04x}" for byte in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise UserError(
            f"{corpus.name} has bytes that the imported model of {saved.alphabet.size} symbols "
            f"does not know, {shown}{more}: leave them out of the text"
        )
    return saved.alphabet


# What the weights of a model are made for.
_STRUCTURE = ("num_layers", "hidden_size", "embedding_size", "layer_norm", "connections")


def read_weights(
    source: str, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh
) -> Params:
    """Reads the weights of another run, if they fit this one."""
    # Each process that has a copy fetches into its own, and has the models that come with charlstm.
    place = shipped.find(source) or paths.local(
        coordination.broadcast(lambda: paths.shown(resolve(source)))
    )
    if place.is_dir():
        paths.fetch(place, MODEL_ITEMS)
    metadata = metadata_of(place)
    _require_structure(f"--init_from={source}", metadata.config, config, _STRUCTURE)
    if metadata.alphabet.symbols != alphabet.symbols:
        raise UserError(
            f"--init_from={source} has an alphabet of {metadata.alphabet.size} bytes "
            f"({metadata.alphabet.kind}), this run another of {alphabet.size} ({alphabet.kind}): "
            "weights move between texts only with model.alphabet=bytes on both sides"
        )
    return read_params(place, metadata, meshes.replicated(mesh))


def read_imported(folder: Path, config: Config, mesh: jax.sharding.Mesh) -> Params:
    """Reads the weights that an import has put into a run folder, if they fit the configuration.

    Args:
      folder: of the checkpoint.
      config: of the run that begins with them; its alphabet is the checkpoint's.
      mesh: the devices.
    """
    metadata = read_metadata(folder)
    run = folder.parent.parent
    _require_structure(str(run), metadata.config, config, (*_STRUCTURE, "alphabet"))
    return read_params(folder, metadata, meshes.replicated(mesh))


def _require_structure(what: str, found: Config, wanted: Config, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(found.model, name)
        if getattr(wanted.model, name) != value:
            raise UserError(
                f"{what} has model.{name}={value}, this run {getattr(wanted.model, name)}: "
                f"set --config.model.{name}={value}"
            )


def absolute(init_from: str | Path) -> str:
    """Returns the path of a run that weights come from as a checkpoint records it."""
    return shipped.absolute(init_from)


def require_same_start(folder: Path, init_from: str | Path, recorded: str | None) -> None:
    """Raises `UserError` unless a run that goes on began with the weights that are asked for."""
    if absolute(init_from) != recorded:
        raise UserError(
            f"{folder} has checkpoints already, and its run did not begin with the weights of "
            f"--init_from={init_from}: leave that out to go on, or choose another --workdir to "
            "begin with them"
        )


def require_same_run(folder: Path, metadata: Metadata, config: Config, corpus: Corpus) -> None:
    """Raises `UserError` unless the checkpoint's run is the one asked for."""
    saved = metadata.config.flat()
    differing = [
        f"{field} was {saved[field]!r} and is now {value!r}"
        for field, value in config.flat().items()
        if field not in FREE_FIELDS | CHANGEABLE_FIELDS and saved[field] != value
    ]
    if differing:
        raise UserError(
            f"{folder} holds another run: {'; '.join(differing)}; set it back, or choose another "
            f"--workdir ({_INIT_FROM.format(folder)})"
        )
    if metadata.corpus["sha256"] != corpus.sha256:
        raise UserError(
            f"the text of {folder} has changed: it was {metadata.corpus['name']} with "
            f"{metadata.corpus['num_bytes']} bytes, sha256 {metadata.corpus['sha256'][:12]}…, and "
            f"{corpus.name} has {len(corpus.data)} bytes, sha256 {corpus.sha256[:12]}…; bring the "
            f"old text back, or choose another --workdir ({_INIT_FROM.format(folder)})"
        )


def changes(updates: int, saved: Config, config: Config) -> list[dict[str, Any]]:
    """Returns what a resumed run changes for the updates after the first so many.

    Returns:
      A `field`, its values `from` and `to`, and the `updates` made before, for each change.
    """
    before = saved.flat()
    return [
        {"updates": updates, "field": field, "from": before[field], "to": value}
        for field, value in config.flat().items()
        if field in CHANGEABLE_FIELDS and before[field] != value
    ]


def log_changes(recorded: list[dict[str, Any]], updates: int) -> None:
    """Logs a line for each change that begins after the first so many updates."""
    for change in recorded:
        if change["updates"] == updates:
            logging.info("%s was %s and is now %s", *(change[k] for k in ("field", "from", "to")))


def with_optimizer(state: TrainState, config: OptimizerConfig) -> TrainState:
    """Returns a state with its optimizer's part in the structure that a configuration gives it.

    Whether gradients are clipped changes this structure, and none of the arrays in it.
    """
    structure = jax.tree.structure(jax.eval_shape(make_optimizer(config).init, state.params))
    leaves = jax.tree.leaves(state.opt_state)
    return dataclasses.replace(state, opt_state=jax.tree.unflatten(structure, leaves))


def with_seed(state: TrainState, seed: int) -> TrainState:
    """Returns a state whose updates draw their random numbers from another seed."""
    key, sharding = np.asarray(keys(np.uint32(seed))[1]), state.key.sharding
    assert isinstance(sharding, jax.NamedSharding)
    return dataclasses.replace(state, key=meshes.put(key, sharding))
