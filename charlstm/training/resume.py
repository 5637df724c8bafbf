"""Resuming a run, or starting from another one: what must be the same, and what is taken along."""

from pathlib import Path

import jax
from absl import logging

from charlstm.checkpoint.metadata import Metadata, read_metadata
from charlstm.checkpoint.reading import read_params, resolve
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.errors import UserError
from charlstm.model.parameters import Params
from charlstm.model.size import within_budget
from charlstm.runtime import distributed

# Fields that may change when a run is resumed; a change of any other makes it another run.
FREE_FIELDS = frozenset(
    {
        "data.corpus",  # the bytes themselves are compared
        "training.num_updates",
        "training.log_every",
        "training.evaluate_every",
        "training.sample_every",
        "training.checkpoint_every",
        "training.checkpoint_seconds",
        "training.keep_last",
        "training.keep_every",
        "training.updates_per_dispatch",
        "model.command_buffers",
        "training.max_skipped_in_a_row",
        # Which devices compute it does not change what is computed.
        "mesh.data",
        "mesh.model",
        "mesh.shard",
    }
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


def read_weights(
    source: str, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh
) -> Params:
    """Reads the weights of another run, if they fit this one."""
    folder = resolve(source)
    metadata = read_metadata(folder)
    wanted, found = config.model, metadata.config.model
    for name in ("num_layers", "hidden_size", "embedding_size", "layer_norm", "connections"):
        if getattr(wanted, name) != getattr(found, name):
            raise UserError(
                f"--init_from={source} has model.{name}={getattr(found, name)}, this run "
                f"{getattr(wanted, name)}: set --config.model.{name}={getattr(found, name)}"
            )
    if metadata.alphabet.symbols != alphabet.symbols:
        raise UserError(
            f"--init_from={source} has an alphabet of {metadata.alphabet.size} bytes "
            f"({metadata.alphabet.kind}), this run another of {alphabet.size} ({alphabet.kind}): "
            "weights move between texts only with model.alphabet=bytes on both sides"
        )
    return read_params(folder, metadata, distributed.replicated(mesh))


def require_same_run(folder: Path, metadata: Metadata, config: Config, corpus: Corpus) -> None:
    """Raises `UserError` unless the checkpoint's run is the one asked for."""
    saved = metadata.config.flat()
    differing = [
        f"{field} was {saved[field]!r} and is now {value!r}"
        for field, value in config.flat().items()
        if field not in FREE_FIELDS and saved[field] != value
    ]
    if differing:
        raise UserError(
            f"{folder} holds another run: {'; '.join(differing)}; set it back, or choose another "
            "--workdir (--init_from takes the weights along)"
        )
    if metadata.corpus["sha256"] != corpus.sha256:
        raise UserError(
            f"the text of {folder} has changed: it was {metadata.corpus['name']} with "
            f"{metadata.corpus['num_bytes']} bytes, sha256 {metadata.corpus['sha256'][:12]}…, and "
            f"{corpus.name} has {len(corpus.data)} bytes, sha256 {corpus.sha256[:12]}…; bring the "
            "old text back, or choose another --workdir (--init_from takes the weights along)"
        )
    if saved["training.num_updates"] != config.training.num_updates:
        logging.info(
            "training.num_updates was %d and is now %d: the schedule of the learning rate changes",
            saved["training.num_updates"],
            config.training.num_updates,
        )
