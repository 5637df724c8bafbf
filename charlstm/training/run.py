"""A run: from a configuration and a folder to a trained model in that folder.

The folder holds config.json, metrics.jsonl, checkpoints/ and samples/. A run that finds checkpoints
there goes on from the newest, after making sure that it is the same run.
"""

import json
import os
import time
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
from charlstm import coordination, distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.data.ngrams import cached_ngram_levels, describe_position
from charlstm.data.streams import Streams
from charlstm.errors import Ended, TrainingFailed, UserError
from charlstm.model import language_model
from charlstm.model.language_model import Params
from charlstm.preemption import EXIT_SAVED, Watch
from charlstm.sampling.decode import Decoder, Settings
from charlstm.sampling.text import printable
from charlstm.training import checkpoint, memory
from charlstm.training.about import FILE as ABOUT_FILE
from charlstm.training.about import about
from charlstm.training.checkpoint import Checkpoints, Metadata
from charlstm.training.conductor import Conductor, Pace
from charlstm.training.evaluation import Evaluation, Evaluator
from charlstm.training.goodput import Goodput, process_began
from charlstm.training.input import load_shared_corpus
from charlstm.training.loop import Actions, Progress, ended, evaluation_is_due, fit, validate
from charlstm.training.metrics import Clock, Console, Writer, make_console, make_metrics_file
from charlstm.training.profile import Profile
from charlstm.training.program import CompiledDispatch, Program, dtype_of, recurrence_of
from charlstm.training.state import TrainState
from charlstm.training.writers import Writers, other_writers

SAMPLE_BYTES = 300
SAMPLE_TEMPERATURE = 0.8
SECONDS_UNTIL_FOLDER_IS_SEEN = 30  # a network's file system may be late
# Fields that a run may be continued with other values of; all others make it another run.
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


def train(
    config: Config,
    folder: Path,
    *,
    init_from: str | None = None,
    stop_after: int | None = None,
    watch: Watch | None = None,
    print_shardings: bool = False,
    tensorboard: bool = False,
    wandb_project: str | None = None,
    profile_updates: tuple[int, int] | None = None,
) -> None:
    """Trains in `folder`, going on from its newest checkpoint if it has one.

    Of several processes each calls this, with the same arguments.

    Args:
      config: the experiment.
      folder: the run folder; made if need be.
      init_from: a run or checkpoint whose weights a new run starts from.
      stop_after: ends, saved, after this update of the full schedule.
      watch: where signals to end arrive.
      print_shardings: shows how every array of the state lies over the devices.
      tensorboard: whether to write event files too.
      wandb_project: the project at Weights & Biases to tell too.
      profile_updates: the first update to trace, and the one to stop before.

    Raises:
      UserError: bad input, before anything is compiled or changed.
      TrainingFailed: the run diverged, or another process died.
      Ended: the run was asked to end, and has been saved.
    """
    goodput = Goodput(process_began())
    # Input.
    corpus = load_shared_corpus(config.data)
    alphabet = Alphabet.of(config.model.alphabet, corpus.data)
    text = corpus.split("train")
    streams = Streams(len(text), config.data.num_streams, config.data.window_length)
    corpus.split("valid")  # raises if nothing is held out

    # Devices.
    mesh = distributed.make_mesh(config.data.num_streams, config.mesh.data, config.mesh.model)
    _make_folder(folder)

    with jax.set_mesh(mesh):
        # State: new, from another model's weights, or as this run left it.
        program = Program(config, alphabet, mesh)
        checkpoints = Checkpoints(folder, config.training.keep_last, config.training.keep_every)
        progress = Progress(Clock(), goodput=goodput)
        step = checkpoints.latest_step()
        if step is not None:
            metadata = checkpoints.metadata(step)
            _require_same_run(folder, metadata, config, corpus)
            with goodput.lost_to("restore"):
                state = checkpoints.restore(step, program.abstract_state())
            goodput.goes_on_from(metadata.clock.get("goodput", {}))
            clock = Clock(metadata.clock["seconds"])
            progress = Progress(clock, metadata.clock["skipped"], goodput=goodput)
            logging.info("going on from update %d of %s", step, folder)
        else:
            start = None if init_from is None else _read_weights(init_from, config, alphabet, mesh)
            state = program.initialise(config.training.seed)
            if start is not None:
                state = program.start_from(start, state)
                logging.info("starting from the weights of %s", init_from)
        if coordination.is_first():
            _write_json(folder / "config.json", config.to_json())
        stop = min(stop_after or config.training.num_updates, config.training.num_updates)
        first_step = step or 0
        # A run that had to end in the midst of an evaluation makes up for it.
        made_up = step is None or bool(metadata.metrics) or step > stop
        made_up = made_up or not evaluation_is_due(first_step, config.training)
        if first_step >= stop and made_up:
            logging.info("nothing to do: %s is at update %d of %d", folder, first_step, stop)
            checkpoints.close()
            return

        profile = None
        if profile_updates is not None:
            num_updates = config.training.num_updates
            profile = Profile(folder, *profile_updates, step=first_step, num_updates=num_updates)
        others = other_writers(
            folder,
            first_step,
            tensorboard=tensorboard,
            wandb_project=wandb_project,
            config=config.to_json(),
        )

        # The update, compiled before the first step.
        with goodput.lost_to("compile"):
            dispatch = program.compile(streams, text, state)
            needed = _require_memory(config, alphabet, mesh, text, dispatch)
        goodput.counts_input_by(dispatch.input_seconds)
        _introduce(config, corpus, alphabet, state, mesh)
        logging.info("%s", memory.describe(needed, memory.available_bytes()))
        levels = cached_ngram_levels(corpus, "valid") if coordination.is_first() else []
        if coordination.is_first():
            num_parameters = language_model.num_parameters(state.params)
            told = about(config, corpus, alphabet, num_parameters, levels, mesh, versions())
            _write_json(folder / ABOUT_FILE, told)
        if print_shardings:
            logging.info("%s", describe_shardings(state))

        # Train.
        training = config.training
        pace = Pace(training.updates_per_dispatch, dispatch.max_updates)
        conductor = Conductor(pace, watch, training.checkpoint_seconds)
        writer = Writers([make_metrics_file(folder, first_step), *others])
        actions = _actions(
            config, writer, corpus, alphabet, mesh, checkpoints, progress, program, conductor
        )
        console = make_console(training.num_updates, first_step)
        if watch is not None:
            watch.start()
        goodput.started()
        try:
            with jax.transfer_guard("disallow"):
                if not made_up:
                    with goodput.lost_to("evaluation"):
                        validated = validate(state.params, first_step, actions, console)
                    if not validated:
                        raise ended(first_step, watch.code if watch and watch.code else EXIT_SAVED)
                    writer.amend({"step": first_step} | validated)
                    if coordination.is_first():
                        checkpoints.add_metrics(first_step, validated)
                fit(
                    state,
                    dispatch,
                    streams,
                    training,
                    stop,
                    actions,
                    progress,
                    writer,
                    console,
                    conductor,
                    profile,
                )
            _finish(checkpoints, goodput, console)
        except Ended as end:
            _finish(checkpoints, goodput, console)
            raise Ended(str(end) if coordination.is_first() else "", end.code) from end
        except OSError as error:
            raise UserError(
                f"could not write to {folder} ({error.strerror}): make room or choose another "
                "--workdir; the same command goes on from the last checkpoint"
            ) from error
        except jax.errors.JaxRuntimeError as error:
            if coordination.is_alone():
                raise
            logging.debug("a process was lost", exc_info=error)
            # Whatever is left to do would wait for the dead.
            coordination.leave_the_lost(" ".join(str(error).split())[:200])
        finally:
            console.close()
            if profile is not None:
                profile.close()
            writer.close()
            checkpoints.close()


def _finish(checkpoints: Checkpoints, goodput: Goodput, console: Console) -> None:
    """Returns when all is on disk, and says where the time went."""
    with goodput.lost_to("save"):
        checkpoints.wait()
    console.say(goodput.summary())


def _actions(
    config: Config,
    writer: Writer,
    corpus: Corpus,
    alphabet: Alphabet,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    progress: Progress,
    program: Program,
    conductor: Conductor,
) -> Actions:
    """What the loop does between dispatches."""
    compute_dtype = dtype_of(config.model)
    evaluator = Evaluator(
        corpus.data,
        *corpus.bounds.valid,
        alphabet,
        mesh,
        compute_dtype=compute_dtype,
        recurrence_name=recurrence_of(config.model, config.mesh.model),
        layout=program.layout,
    )
    decoder = Decoder(1, Settings(temperature=SAMPLE_TEMPERATURE), compute_dtype)
    # Samples follow the text's own first byte: a prompt that every corpus has.
    prompt = alphabet.encode(corpus.data[:1])

    def evaluate(params: Params) -> Evaluation | None:
        return evaluator.unless(params, conductor.leaving)

    def sample(params: Params, step: int) -> str | None:
        # Every process draws the same; process 0 alone writes it down.
        pieces = []
        with jax.transfer_guard("allow"):
            model = decoder.load(program.whole(params))
            for piece in decoder(model, prompt, SAMPLE_BYTES, config.training.seed):
                pieces.append(piece[0])
                if conductor.leaving():
                    return None
        if not coordination.is_first():
            return ""
        drawn = alphabet.decode(np.concatenate(pieces))
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
            clock={
                "seconds": progress.clock.seconds(),
                "skipped": progress.skipped,
                "goodput": progress.goodput.to_json(),
            },
            metrics=metrics,
            versions=versions(),
        )
        with jax.transfer_guard("allow"):
            checkpoints.save(state, step, metadata)

    levels = cached_ngram_levels(corpus, "valid") if coordination.is_first() else []

    def reference(bits: float) -> str:
        if not levels:
            return ""
        counted = levels[0].fit_bytes
        sampled = counted < corpus.bounds.train[1]
        return describe_position(bits, levels) + (f" of {counted:,} bytes" if sampled else "")

    return Actions(
        evaluate=evaluate,
        sample=sample,
        save=save,
        reference=reference,
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


def _require_memory(
    config: Config,
    alphabet: Alphabet,
    mesh: jax.sharding.Mesh,
    text: np.ndarray,
    dispatch: CompiledDispatch,
) -> int:
    """The bytes that an update needs of each device; raises `UserError` if it has less."""

    def needed(num_streams: int) -> int:
        if num_streams == config.data.num_streams:
            return memory.needed_bytes(dispatch.memory_analysis())
        smaller = Program(config.replace({"data.num_streams": num_streams}), alphabet, mesh)
        streams = Streams(len(text), num_streams, config.data.window_length)
        compiled = smaller.compile(streams, text, smaller.abstract_state())
        return memory.needed_bytes(compiled.memory_analysis())

    multiple = mesh.shape[distributed.DATA_AXIS]
    available = memory.available_bytes() if coordination.is_alone() else None
    return memory.require_fit(config.data.num_streams, multiple, available, needed)


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
        recurrence_of(model, config.mesh.model),
    )
    logging.info(
        "data: %s, %s bytes to train on, %s for validation; %d streams × %d bytes an update",
        corpus.name,
        f"{len(corpus.split('train')):,}",
        f"{len(corpus.split('valid')):,}",
        config.data.num_streams,
        config.data.window_length,
    )
    processes = "" if coordination.is_alone() else f" in {jax.process_count()} processes"
    sizes = mesh.shape[distributed.DATA_AXIS], mesh.shape[distributed.MODEL_AXIS]
    shape = "" if sizes[1] == 1 else f", data × model = {sizes[0]} × {sizes[1]}"
    logging.info("devices: %d × %s%s%s", mesh.size, devices[0].device_kind, processes, shape)


def describe_shardings(state: TrainState) -> str:
    """One line for each array of the state: name, shape, dtype, and what it is split over."""
    rows = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        part = leaf.sharding.shard_shape(leaf.shape)
        rows.append((name, f"{leaf.dtype.name}{list(leaf.shape)}", str(leaf.sharding.spec), part))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {spec:<{widths[2]}}  "
        f"{'whole' if shape.endswith(str(list(part))) else f'{list(part)} a device'}"
        for name, shape, spec, part in rows
    ]
    return "\n".join(["shardings:", *lines])


def versions() -> dict[str, str]:
    """Versions of charlstm and of the libraries that its numbers depend on."""
    modules = {"jax": jax, "flax": flax, "optax": optax, "orbax": orbax.checkpoint}
    found = {name: module.__version__ for name, module in modules.items()}
    return {"charlstm": charlstm.__version__} | found


def _make_folder(folder: Path) -> None:
    """Makes the run folder, writable, in process 0; makes sure that all processes see it."""

    def make() -> str:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            return str(error.strerror)
        return ""

    trouble = coordination.from_first(make)
    if trouble:
        raise UserError(
            f"cannot write to the run folder {folder} ({trouble}): choose another --workdir"
        )
    until = time.monotonic() + SECONDS_UNTIL_FOLDER_IS_SEEN
    while not folder.is_dir():
        if time.monotonic() > until:
            raise UserError(
                f"process {jax.process_index()} does not see the run folder {folder.absolute()} "
                "that process 0 has made: choose a --workdir on a file system that all share"
            )
        time.sleep(0.1)


def _write_json(path: Path, values: Any) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(draft, path)
