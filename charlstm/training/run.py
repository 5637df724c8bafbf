"""A run: from a configuration and a folder to a trained model in that folder.

The folder holds config.json, metrics.jsonl, checkpoints/ and samples/. A run that finds checkpoints
there goes on from the newest, after making sure that it is the same run.
"""

import json
import os
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
from absl import logging

import charlstm
from charlstm import distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus, load_corpus
from charlstm.data.ngrams import cached_ngram_levels, describe_position
from charlstm.data.streams import Streams
from charlstm.errors import TrainingFailed, UserError
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.text import printable
from charlstm.training import checkpoint
from charlstm.training.about import FILE as ABOUT_FILE
from charlstm.training.about import about
from charlstm.training.checkpoint import Checkpoints, Metadata
from charlstm.training.evaluation import Evaluator
from charlstm.training.loop import Actions, Progress, fit
from charlstm.training.metrics import Clock, MetricsFile, make_console
from charlstm.training.profile import Profile
from charlstm.training.program import Program, dtype_of, recurrence_of
from charlstm.training.state import TrainState
from charlstm.training.writers import TensorBoardWriter, WandbWriter, Writer, Writers

SAMPLE_BYTES = 300
SAMPLE_TEMPERATURE = 0.8
# Fields that a run may be continued with other values of; all others make it another run.
FREE_FIELDS = frozenset(
    {
        "data.corpus",  # the bytes themselves are compared
        "training.num_updates",
        "training.log_every",
        "training.evaluate_every",
        "training.sample_every",
        "training.checkpoint_every",
        "training.keep_last",
        "training.keep_every",
        "training.updates_per_dispatch",
        "training.max_skipped_in_a_row",
    }
)


def train(
    config: Config,
    folder: Path,
    *,
    init_from: str | None = None,
    stop_after: int | None = None,
    tensorboard: bool = False,
    wandb_project: str | None = None,
    profile_updates: tuple[int, int] | None = None,
) -> None:
    """Trains in `folder`, going on from its newest checkpoint if it has one.

    Args:
      config: the experiment.
      folder: the run folder; made if need be.
      init_from: a run or checkpoint whose weights a new run starts from.
      stop_after: ends, saved, after this update of the full schedule.
      tensorboard: whether to write event files too.
      wandb_project: the project at Weights & Biases to tell too.
      profile_updates: the first update to trace, and the one to stop before.

    Raises:
      UserError: bad input, before anything is compiled or changed.
      TrainingFailed: the run diverged.
    """
    # Input.
    corpus = load_corpus(config.data.corpus, config.data.valid_size, config.data.test_size)
    alphabet = Alphabet.of(config.model.alphabet, corpus.data)
    text = corpus.split("train")
    streams = Streams(len(text), config.data.num_streams, config.data.window_length)
    corpus.split("valid")  # raises if nothing is held out

    # Devices.
    mesh = distributed.make_mesh(config.data.num_streams)
    _make_folder(folder)

    with jax.set_mesh(mesh):
        # State: new, from another model's weights, or as this run left it.
        program = Program(config, alphabet, mesh)
        checkpoints = Checkpoints(folder, config.training.keep_last, config.training.keep_every)
        progress = Progress(Clock())
        step = checkpoints.latest_step()
        if step is not None:
            metadata = checkpoints.metadata(step)
            _require_same_run(folder, metadata, config, corpus)
            state = checkpoints.restore(step, program.abstract_state())
            progress = Progress(Clock(metadata.clock["seconds"]), metadata.clock["skipped"])
            logging.info("going on from update %d of %s", step, folder)
        else:
            start = None if init_from is None else _read_weights(init_from, config, alphabet, mesh)
            state = program.initialise(jnp.uint32(config.training.seed))
            if start is not None:
                state = TrainState(
                    state.step, start, program.optimizer.init(start), state.carry, state.key
                )
                logging.info("starting from the weights of %s", init_from)
        _write_json(folder / "config.json", config.to_json())
        stop = min(stop_after or config.training.num_updates, config.training.num_updates)
        first_step = step or 0
        if first_step >= stop:
            logging.info("nothing to do: %s is at update %d of %d", folder, first_step, stop)
            checkpoints.close()
            return

        profile = None
        if profile_updates is not None:
            profile = Profile(folder, *profile_updates, config.training.num_updates)
        others: list[Writer] = []
        if tensorboard:
            others.append(TensorBoardWriter(folder, first_step))
        if wandb_project is not None:
            others.append(WandbWriter(folder, wandb_project, config.to_json()))

        # The update, compiled before the first step.
        dispatch = program.compile(streams, text, state)
        _introduce(config, corpus, alphabet, state, mesh)
        levels = cached_ngram_levels(corpus, "valid")
        num_parameters = language_model.num_parameters(state.params)
        told = about(config, corpus, alphabet, num_parameters, levels, mesh, versions())
        _write_json(folder / ABOUT_FILE, told)

        # Train.
        writer = Writers([MetricsFile(folder, first_step), *others])
        actions = _actions(config, writer, corpus, alphabet, mesh, checkpoints, progress)
        console = make_console(config.training.num_updates, first_step)
        try:
            with jax.transfer_guard("disallow"):
                fit(
                    state,
                    dispatch,
                    streams,
                    config.training,
                    stop,
                    actions,
                    progress,
                    writer,
                    console,
                    profile,
                )
            checkpoints.wait()
        except OSError as error:
            raise UserError(
                f"could not write to {folder} ({error.strerror}): make room or choose another "
                "--workdir; the same command goes on from the last checkpoint"
            ) from error
        finally:
            console.close()
            if profile is not None:
                profile.close()
            writer.close()
            checkpoints.close()


def _actions(
    config: Config,
    writer: Writer,
    corpus: Corpus,
    alphabet: Alphabet,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    progress: Progress,
) -> Actions:
    """What the loop does between dispatches."""
    compute_dtype = dtype_of(config.model)
    evaluator = Evaluator(
        corpus.data,
        *corpus.bounds.valid,
        alphabet,
        mesh,
        compute_dtype=compute_dtype,
        recurrence_name=recurrence_of(config.model),
    )
    decoder = Decoder(1, Settings(temperature=SAMPLE_TEMPERATURE), compute_dtype)
    # Samples follow the text's own first byte: a prompt that every corpus has.
    prompt = alphabet.encode(corpus.data[:1])

    def sample(params: Params, step: int) -> str:
        with jax.transfer_guard("allow"):
            pieces = decoder(params, prompt, SAMPLE_BYTES, config.training.seed)
            drawn = alphabet.decode(np.concatenate([piece[0] for piece in pieces]))
        writer.sample(step, drawn)
        return f"sample at update {step}:\n{printable(drawn)}\n"

    all_finite = jax.jit(
        lambda params: jnp.all(
            jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)])
        )
    )

    def save(state: TrainState, step: int, metrics: dict[str, float]) -> None:
        if not jax.device_get(all_finite(state.params)):
            raise TrainingFailed(
                f"the parameters are not finite at update {step}: the run ends and its checkpoints "
                "are as they were; lower optimizer.learning_rate and start from the last one"
            )
        metadata = Metadata(
            config=config,
            alphabet=alphabet,
            corpus={
                "name": corpus.name,
                "sha256": corpus.sha256,
                "num_bytes": len(corpus.data),
            },
            clock={"seconds": progress.clock.seconds(), "skipped": progress.skipped},
            metrics=metrics,
            versions=versions(),
        )
        with jax.transfer_guard("allow"):
            checkpoints.save(state, step, metadata)

    levels = cached_ngram_levels(corpus, "valid")
    return Actions(
        evaluate=evaluator,
        sample=sample,
        save=save,
        reference=lambda bits: describe_position(bits, levels),
    )


def _read_weights(
    source: str, config: Config, alphabet: Alphabet, mesh: jax.sharding.Mesh
) -> Params:
    """The weights of another run, if they fit this one."""
    folder = checkpoint.resolve(source)
    metadata = checkpoint.read_metadata(folder)
    wanted, found = config.model, metadata.config.model
    for name in ("num_layers", "hidden_size"):
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
    return checkpoint.read_params(folder, metadata, distributed.replicated(mesh))


def _require_same_run(folder: Path, metadata: Metadata, config: Config, corpus: Corpus) -> None:
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


def _introduce(
    config: Config,
    corpus: Corpus,
    alphabet: Alphabet,
    state: TrainState,
    mesh: jax.sharding.Mesh,
) -> None:
    """Says in a few lines what is about to be trained on what."""
    model, devices = config.model, mesh.devices.flat
    logging.info(
        "model: %d × LSTM(%d), %d symbols, %s parameters, %s, recurrence %s",
        model.num_layers,
        model.hidden_size,
        alphabet.size,
        f"{language_model.num_parameters(state.params):,}",
        jnp.dtype(dtype_of(model)).name,
        recurrence_of(model),
    )
    logging.info(
        "data: %s, %s bytes to train on, %s for validation; %d streams × %d bytes an update",
        corpus.name,
        f"{len(corpus.split('train')):,}",
        f"{len(corpus.split('valid')):,}",
        config.data.num_streams,
        config.data.window_length,
    )
    logging.info("devices: %d × %s", mesh.size, devices[0].device_kind)


def versions() -> dict[str, str]:
    """Versions of charlstm and of the libraries that its numbers depend on."""
    modules = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint}
    found = {name: module.__version__ for name, module in modules.items()}
    return {"charlstm": charlstm.__version__} | found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder} ({error.strerror}): choose another --workdir"
        ) from error


def _write_json(path: Path, values: Any) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(draft, path)
