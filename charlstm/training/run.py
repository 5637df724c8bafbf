"""A run: from a configuration and a folder to a trained model in that folder.

The folder holds config.json, metrics.jsonl, checkpoints/ and samples/. A run that finds checkpoints
there goes on from the newest, after making sure that it is the same run.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from charlstm import coordination, distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.data.ngrams import cached_ngram_levels
from charlstm.data.streams import Streams
from charlstm.errors import Ended, UserError
from charlstm.files import replace_file
from charlstm.model import language_model
from charlstm.preemption import EXIT_SAVED, Watch
from charlstm.training import memory
from charlstm.training.about import FILE as ABOUT_FILE
from charlstm.training.about import about, versions
from charlstm.training.actions import make_actions
from charlstm.training.checkpoint import Checkpoints
from charlstm.training.conductor import Conductor, Pace
from charlstm.training.continuing import read_weights, require_same_run, sized
from charlstm.training.diagnosis.diagnostician import Diagnostician, make_probe, setting_of
from charlstm.training.goodput import Goodput, process_began
from charlstm.training.input import load_shared_corpus
from charlstm.training.introduction import describe_shardings, introduce
from charlstm.training.loop import after_validation, ended, evaluation_is_due, fit, validate
from charlstm.training.metrics import Console, make_console, make_metrics_file
from charlstm.training.profile import Profile
from charlstm.training.program import CompiledDispatch, Program
from charlstm.training.progress import Progress
from charlstm.training.writers import Writers, other_writers

SECONDS_UNTIL_FOLDER_IS_SEEN = 30  # a network's file system may be late


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
        checkpoints = Checkpoints(folder, config.training.keep_last, config.training.keep_every)
        step = checkpoints.latest_step()
        metadata = None if step is None else checkpoints.metadata(step)
        config = sized(config, alphabet, None if metadata is None else metadata.config)
        program = Program(config, alphabet, mesh)
        if step is not None and metadata is not None:
            require_same_run(folder, metadata, config, corpus)
            with goodput.lost_to("restore"):
                state = checkpoints.restore(step, program.abstract_state())
            progress = Progress.of(metadata.clock, config.optimizer, goodput)
            logging.info("going on from update %d of %s", step, folder)
        else:
            start = None if init_from is None else read_weights(init_from, config, alphabet, mesh)
            state = program.initialise(config.training.seed)
            progress = Progress.new(config.optimizer, goodput)
            if start is not None:
                state = program.start_from(start, state)
                logging.info("starting from the weights of %s", init_from)
        if coordination.is_first():
            _write_json(folder / "config.json", config.to_json())
        stop = min(stop_after or config.training.num_updates, config.training.num_updates)
        first_step = step or 0
        # A run that had to end in the midst of an evaluation makes up for it.
        made_up = metadata is None or bool(metadata.metrics) or first_step > stop
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
        introduce(config, corpus, alphabet, state, mesh)
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
        actions = make_actions(
            config, writer, corpus, alphabet, levels, checkpoints, progress, program, conductor
        )
        console = make_console(training.num_updates, first_step)
        diagnostician = Diagnostician(
            setting_of(config, streams, state.params, levels),
            progress.history,
            make_probe(
                program.evaluator_of(corpus.data),
                corpus.bounds.valid,
                config.data.reset_every,
                conductor.leaving,
            ),
            writer,
            console,
        )
        diagnostician.began(first_step)
        if watch is not None:
            watch.start()
        goodput.started()
        try:
            with jax.transfer_guard("disallow"):
                validated: dict[str, float] = {}
                if not made_up:
                    with goodput.lost_to("evaluation"):
                        validated = validate(state.weights, first_step, actions, console)
                    if not validated:
                        raise ended(first_step, watch.code if watch and watch.code else EXIT_SAVED)
                    writer.amend({"step": first_step} | validated)
                    bits = validated["valid_bits_per_byte"]
                    diagnostician.validated(first_step, state.weights, bits)
                    if coordination.is_first():
                        remembered = progress.history.to_json()
                        checkpoints.add_metrics(first_step, validated, remembered)
                elif metadata is not None:
                    validated = metadata.metrics
                state = after_validation(state, first_step, validated, progress, console)
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
                    diagnostician,
                    config.optimizer.clip_norm,
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
    replace_file(path, json.dumps(values, indent=2) + "\n")
