"""Checkpoints, written and read through Orbax; the one file that knows it.

A checkpoint is a folder `checkpoints/STEP` with three items: `params`, `progress` (the rest of the
train state) and `metadata` (JSON: configuration, alphabet, corpus, versions); where parameters are
averaged, with a fourth, `average`. It stands alone: a
model is sampled from that folder and nothing else, whatever devices it was trained on.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from charlstm import coordination
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.files import replace_file
from charlstm.model.language_model import Params
from charlstm.training.averaging import Averaging
from charlstm.training.state import TrainState, init_params

FOLDER = "checkpoints"
METRIC = "valid_bits_per_byte"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself."""

    config: Config
    alphabet: Alphabet
    corpus: dict[str, Any]  # name, sha256, num_bytes
    clock: dict[str, Any]  # what a run remembers: seconds trained, updates skipped, faults seen
    metrics: dict[str, float]  # of the validation at this step, if there was one
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"config": self.config.to_json(), "alphabet": self.alphabet.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Metadata":
        """From `to_json`'s form."""
        config = Config.from_json(values["config"])
        alphabet = Alphabet.from_json(values["alphabet"])
        return cls(**(values | {"config": config, "alphabet": alphabet}))


class Checkpoints:
    """The checkpoints of one run, for saving and for going on.

    Args:
      run: the run folder.
      keep_last: how many of the newest are kept.
      keep_every: one every so many updates is kept for good; 0 for none.
    """

    def __init__(self, run: Path, keep_last: int, keep_every: int):
        policies: list[Any] = [
            checkpoint_managers.LatestN(keep_last),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics[METRIC],
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._folder = run.absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """The newest checkpoint's step; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, metadata: Metadata) -> None:
        """Starts a save in the background; the state may be donated as soon as this returns.

        Raises:
          UserError: this save or the one before it could not be written.
        """
        parts = _parts(state)
        with _writing(self._folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(part) for name, part in parts.items()},
                    metadata=ocp.args.JsonSave(metadata.to_json()),
                ),
                metrics=metadata.metrics or None,
            )

    def wait(self) -> None:
        """Returns when every save has reached the disk.

        Raises:
          UserError: a save could not be written.
        """
        with _writing(self._folder):
            self._manager.wait_until_finished()

    def metadata(self, step: int) -> Metadata:
        """What the checkpoint says of itself, read without its arrays."""
        return read_metadata(self._folder / str(step))

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state at `step`, with the shapes, dtypes and shardings of `abstract`.

        Raises:
          UserError: the checkpoint is damaged or holds other shapes.
        """
        parts = _parts(abstract)
        folder = self._folder / str(step)
        restored = _reading(
            folder,
            lambda: self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardRestore(part) for name, part in parts.items()}
                ),
            ),
        )
        average = restored["average"] if "average" in parts else {}
        return TrainState(params=restored["params"], average=average, **restored["progress"])

    def add_metrics(self, step: int, metrics: dict[str, float], history: dict[str, Any]) -> None:
        """Adds the validation to a checkpoint that was saved without; in process 0.

        Args:
          step: of the checkpoint.
          metrics: the validation.
          history: what the run remembers of its faults now.

        Raises:
          UserError: it could not be written.
        """
        folder = self._folder / str(step)
        metadata = self.metadata(step)
        clock = metadata.clock | {"diagnosis": history}
        metadata = dataclasses.replace(metadata, metrics=metrics, clock=clock)
        with _writing(self._folder):
            (folder / "metrics").mkdir(exist_ok=True)  # where Orbax looks for the best
            replace_file(folder / "metrics" / "metrics", json.dumps(metrics))
            replace_file(folder / "metadata" / "metadata", json.dumps(metadata.to_json()))
        self._manager.reload()

    def close(self) -> None:
        """Ends the background threads; unfinished saves are finished first."""
        with _writing(self._folder):
            self._manager.close()


def resolve(path: str) -> Path:
    """The checkpoint folder that a run folder, its `checkpoints`, or the folder itself means.

    Of a run it is the best checkpoint by validation bits per byte, or the newest if none was
    validated.

    Raises:
      UserError: there is no checkpoint.
    """
    given = Path(path).absolute()
    if not given.exists():
        raise UserError(f"no such checkpoint or run folder: {path}")
    if (given / "params").is_dir() and (given / "metadata").is_dir():
        return given
    folder = given / FOLDER if (given / FOLDER).is_dir() else given
    steps = [entry for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    if not steps:
        raise UserError(
            f"{path} holds no checkpoint: give a run folder with {FOLDER}/STEP in it, or one of "
            "those; a run that ended before its first save has none"
        )
    validated = {step: read_metadata(step).metrics.get(METRIC) for step in steps}
    best = {step: bits for step, bits in validated.items() if bits is not None}
    if best:
        return min(best, key=lambda step: (best[step], -int(step.name)))
    return max(steps, key=lambda step: int(step.name))


def read_metadata(folder: Path) -> Metadata:
    """What the checkpoint in `folder` says of itself.

    Raises:
      UserError: it is damaged.
    """
    return _reading(
        folder,
        lambda: Metadata.from_json(json.loads((folder / "metadata" / "metadata").read_bytes())),
    )


def read_params(folder: Path, metadata: Metadata, sharding: jax.sharding.Sharding) -> Params:
    """The parameters to use of a checkpoint folder, the average if it has one.

    They are laid out by `sharding`.

    Raises:
      UserError: the checkpoint is damaged.
    """
    config, alphabet_size = metadata.config, metadata.alphabet.size
    averaging = Averaging.of(config.optimizer)

    def initial(key: jax.Array) -> tuple[Params, dict[str, Any]]:
        params = init_params(key, config.model, alphabet_size)
        return params, averaging.start(params)

    params, average = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(initial, jax.random.key(0)),
    )

    def read() -> Params:
        with ocp.StandardCheckpointer() as checkpointer:
            if average:
                return checkpointer.restore(folder / "average", average)["params"]
            return checkpointer.restore(folder / "params", params)

    return _reading(folder, read)


def _parts(state: TrainState) -> dict[str, Any]:
    """The state as the items of a checkpoint."""
    progress = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    parts = {"params": progress.pop("params"), "average": progress.pop("average")}
    return {name: part for name, part in parts.items() if part} | {"progress": progress}


class _writing:
    """Turns a failure to write a checkpoint into a `UserError`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not _is_loss_of_a_process(error):
            logging.debug("saving failed", exc_info=error)
            raise UserError(
                f"could not save to {self._folder}: {_reason(error)}; make room or choose "
                "another --workdir; checkpoints saved before are intact, and the same command "
                "goes on from the last of them"
            ) from error


def _reading(folder: Path, read: Callable[[], T]) -> T:
    """The result of `read`, its failure turned into a `UserError`."""
    try:
        with warnings.catch_warnings():
            # Orbax warns that another topology wrote the file: that is our everyday case.
            warnings.simplefilter("ignore")
            return read()
    except (AttributeError, NameError, NotImplementedError):
        raise  # a mistake of ours, not of the file
    except Exception as error:  # Orbax raises exceptions of no class of its own
        if _is_loss_of_a_process(error):
            raise
        logging.debug("reading %s failed", folder, exc_info=error)
        raise UserError(
            f"the checkpoint {folder} is damaged or no checkpoint of charlstm "
            f"({_reason(error)}); move it away to use the one before it"
        ) from error


def _is_loss_of_a_process(error: Exception) -> bool:
    """Whether it is no matter of files: the processes meet for every checkpoint."""
    return isinstance(error, jax.errors.JaxRuntimeError) and not coordination.is_alone()


def _reason(error: BaseException) -> str:
    if "No space left on device" in str(error):
        return "no space left on device"
    text = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
