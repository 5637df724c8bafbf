"""Trains a model; the same command again goes on where it ended.

  charlstm train --config=quickstart --workdir=runs/quickstart
  charlstm train --config=quickstart --corpus=my.txt --config.model.hidden_size=512

Any field of the configuration is set as --config.SECTION.FIELD=VALUE; --print_config lists them.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags, logging

from charlstm.commands import _flags, _shared
from charlstm.commands._devices import set_up_devices
from charlstm.config import Config, load_config, reference
from charlstm.errors import UserError
from charlstm.runtime.preemption import SignalHandler, connect_processes
from charlstm.storage import paths
from charlstm.storage.layout import IMPORTED_FILE

_CONFIG = _flags.define_path(
    "config",
    "quickstart",
    "Name of a configuration, or path of a .json file or of a .py file, which is code that runs. A "
    "run that was imported has its own.",
)
_CORPUS = flags.DEFINE_string(
    "corpus", None, "Registered name, file, folder, glob or - for standard input (data.corpus)."
)
_WORKDIR = _flags.define_path("workdir", None, "Run folder; runs/CONFIG if not given.")
_INIT_FROM = _flags.define_path(
    "init_from",
    None,
    "Run, checkpoint, or file of charlstm export, whose weights a new run starts from.",
)
_STOP_AFTER = flags.DEFINE_integer(
    "stop_after", None, "Save and end after this update; the same command without it goes on.", 1
)
_NUM_CPU_DEVICES = flags.DEFINE_integer(
    "num_cpu_devices", 0, "Devices that this process's CPU is split into; 0 chooses.", 0
)
_PRINT_SHARDINGS = flags.DEFINE_boolean(
    "print_shardings", False, "Show how every array of the state lies over the devices."
)
_INITIALIZATION_TIMEOUT = flags.DEFINE_integer(
    "initialization_timeout", 300, "Seconds to wait for the other processes.", 1
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout", 30, "Seconds of silence after which a process is taken for dead.", 1
)
_PROFILE = flags.DEFINE_string(
    "profile", None, "START:STOP traces these updates, for Perfetto and TensorBoard."
)
_TENSORBOARD = flags.DEFINE_boolean("tensorboard", False, "Write event files for TensorBoard too.")
_WANDB = flags.DEFINE_string("wandb", None, "Project at Weights & Biases to tell too.")
_PRINT_CONFIG = flags.DEFINE_boolean("print_config", False, "Show the configuration and end.")
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "With --print_config: show what automatic choices mean for CHIP:SHAPE, as `charlstm compile`.",
)

take_overrides = _shared.take_overrides


def extra_help() -> str:
    """Returns the description of every configuration field, for `--help`."""
    return reference.as_text(flags.get_help_width())


def main(argv: Sequence[str]) -> None:
    """Trains as the flags say."""
    _shared.no_more_arguments(argv)
    config = _configuration()
    if _TOPOLOGY.value is not None:
        config = _resolved(config, _TOPOLOGY.value)
    if _PRINT_CONFIG.value:
        print(json.dumps(config.to_json(), indent=2))
        return
    signals = SignalHandler()
    name = Path(_CONFIG.value).stem
    workdir = _WORKDIR.value or f"runs/{name}"
    # jax is loaded only once the flags are known good.
    from charlstm.runtime import distributed
    from charlstm.training.goodput import process_began
    from charlstm.training.trainer import train

    hooks, writers = _hooks(signals), _writers()
    set_up_devices(config, _NUM_CPU_DEVICES.value)
    distributed.initialize(
        initialization_timeout=_INITIALIZATION_TIMEOUT.value,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
    )
    _connect(signals)
    train(
        config,
        workdir,
        init_from=_INIT_FROM.value,
        stop_after=_STOP_AFTER.value,
        hooks=hooks,
        writers=writers,
        stop=signals,
        began=process_began(),
    )


def _resolved(config: Config, topology: str) -> Config:
    if not _PRINT_CONFIG.value:
        raise UserError(
            f"--topology={topology} goes with --print_config: training runs on the devices of this "
            "machine, and `charlstm compile` compiles for others"
        )
    from charlstm.compilation.compiling import Machine, resolved

    return resolved(config, Machine.named(topology))


def _hooks(signals: SignalHandler) -> list[Any]:
    """Returns the hooks that the flags ask for, and the one that says when updates begin."""
    from charlstm.training.hooks import Hook
    from charlstm.training.profile import Profile
    from charlstm.training.run import Run
    from charlstm.training.startup import PrintShardings

    class ObeySignalsLater(Hook):
        """Lets a signal wait for the loop from the first update on."""

        def start(self, run: Run) -> None:
            signals.start()

    profile = [Profile.parse(_PROFILE.value)] if _PROFILE.value else []
    shardings = [PrintShardings()] if _PRINT_SHARDINGS.value else []
    return [*profile, *shardings, ObeySignalsLater()]


def _writers() -> list[Any]:
    from charlstm.training.writers import TensorBoardWriter, WandbWriter

    wandb = [] if _WANDB.value is None else [partial(WandbWriter, _WANDB.value)]
    return [*([TensorBoardWriter] if _TENSORBOARD.value else []), *wandb]


def _connect(signals: SignalHandler) -> None:
    """Makes several processes act as one: a signal to any is one to all, and process 0 speaks."""
    import jax

    from charlstm.runtime import coordination

    if coordination.is_single_process():
        return
    store = coordination.KeyValueStore()
    connect_processes(signals, store.write, store.entries, jax.process_index())
    if not coordination.is_first():
        logging.set_verbosity(logging.WARNING)


def _configuration() -> Config:
    values: dict[str, str] = dict(_shared.overrides)
    if _CORPUS.value is not None:
        if values.get("data.corpus", _CORPUS.value) != _CORPUS.value:
            raise UserError("--corpus and --config.data.corpus differ: give one of them")
        values["data.corpus"] = _CORPUS.value
    return (_imported() or load_config(_CONFIG.value)).replace(values)


def _imported() -> Config | None:
    """Returns the configuration of the run folder if an import has made it, and none is named."""
    if _CONFIG.present or not _WORKDIR.value:
        return None
    if not paths.local_single(f"{_WORKDIR.value}/{IMPORTED_FILE}").is_file():
        return None
    return load_config(str(paths.local_single(f"{_WORKDIR.value}/config.json")))
