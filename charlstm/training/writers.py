"""Where a run's figures and samples go: its folder, TensorBoard, Weights & Biases.

The latter two are optional. Neither decides anything: what they show is written to the run folder
too.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from charlstm.errors import UserError
from charlstm.runtime import coordination
from charlstm.sampling.text import printable
from charlstm.storage import paths
from charlstm.training.metrics_file import MetricsFile, is_figures, plain

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id"


class Writer(Protocol):
    """Takes the figures and samples of a run as it goes.

    Figures are plain JSON values; one that is not finite is None.
    """

    def write(self, values: Mapping[str, Any]) -> None:
        """Takes the figures, or a diagnosis, of an update; `step` is among them."""

    def merge(self, values: Mapping[str, Any]) -> None:
        """Takes more figures of the last update written, `step` among them too."""

    def sample(self, step: int, drawn: bytes) -> None:
        """Takes a text that the model made."""

    def close(self) -> None:
        """Takes no more; what is still waiting is sent on."""


# Makes a writer for a run: (run folder, the update it resumes from, its configuration as JSON).
MakeWriter = Callable[[Path, int, dict[str, Any]], Writer]


class Writers:
    """Several writers as one; in a process that is not the first there are none.

    A writer that cannot write raises one line: the run goes on from its last checkpoint.
    """

    def __init__(self, run: Path, writers: Sequence[Writer]):
        self._run, self._writers = run, list(writers)

    @classmethod
    def make(
        cls, run: Path, step: int, config: dict[str, Any], others: Sequence[MakeWriter]
    ) -> "Writers":
        """Returns the writers that are asked for beside the run folder's own.

        Raises:
          UserError: an extra is not installed, or the run folder has no room for its own writer.
        """
        writers = cls(run, [])
        if coordination.is_first():
            MetricsFile.check(run)
            with writers._errors():
                for make in others:
                    writers._writers.append(make(run, step, config))
        return writers

    def open_metrics_file(self, step: int) -> None:
        """Adds the run folder's own writer, which drops the lines of updates after `step`."""
        if coordination.is_first():
            with self._errors():
                self._writers.insert(0, MetricsFile(self._run, step))

    def write(self, values: Mapping[str, Any]) -> None:
        """See `Writer`; numbers may be those of NumPy and JAX, and need not be finite."""
        paths.require_reachable(self._run)
        with self._errors():
            for writer in self._writers:
                writer.write(plain(values))

    def merge(self, values: Mapping[str, Any]) -> None:
        """See `Writer`; numbers as for `write`."""
        with self._errors():
            for writer in self._writers:
                writer.merge(plain(values))

    def sample(self, step: int, drawn: bytes) -> None:
        """See `Writer`."""
        with self._errors():
            for writer in self._writers:
                writer.sample(step, drawn)

    def close(self) -> None:
        """See `Writer`; each is closed, also if another cannot be."""
        with self._errors(), contextlib.ExitStack() as closing:
            for writer in reversed(self._writers):
                closing.callback(writer.close)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"could not write to {self._run} ({error.strerror}): make room or choose another "
                "--workdir; the same command goes on from the last checkpoint"
            ) from error


class TensorBoardWriter:
    """Event files in `tensorboard/` of the run folder: scalars, and samples as text.

    Args:
      run: the run folder.
      step: the update that the run resumes from; TensorBoard drops what an earlier process wrote
        of later ones.
      config: not shown there.

    Raises:
      UserError: the extra is not installed.
    """

    def __init__(self, run: Path, step: int, config: dict[str, Any]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard needs an extra: pip install 'charlstm[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(
            str(run / TENSORBOARD_FOLDER), purge_step=step + 1 if step else None
        )

    def write(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        if not is_figures(values):
            said = f"{values['diagnosis']}: {values['message']}"
            self._writer.add_text("diagnosis", said, values["step"])
        for name, value in scalars(values):
            self._writer.add_scalar(name, value, values["step"])
        self._writer.flush()

    def merge(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        self.write(values)

    def sample(self, step: int, drawn: bytes) -> None:
        """See `Writer`."""
        # TensorBoard reads Markdown: four spaces keep lines as they are.
        lines = printable(drawn).splitlines()
        self._writer.add_text("sample", "\n".join(f"    {line}" for line in lines), step)
        self._writer.flush()

    def close(self) -> None:
        """See `Writer`."""
        self._writer.close()


class WandbWriter:
    """A run at Weights & Biases; its id is kept in the run folder and survives resumption.

    Args:
      project: the project's name.
      run: the run folder.
      step: the update that the run resumes from.
      config: the configuration, to be shown there.

    Raises:
      UserError: the extra is not installed.
    """

    def __init__(self, project: str, run: Path, step: int, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise UserError("--wandb needs an extra: pip install 'charlstm[wandb]'") from error
        kept = run / WANDB_ID_FILE
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex)
        self._run = wandb.init(
            project=project,
            id=kept.read_text().strip(),
            name=run.resolve().name,
            resume="allow",
            dir=str(run),
            config=config,
        )

    def write(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        shown: dict[str, Any] = dict(scalars(values))
        if not is_figures(values):
            shown["diagnosis"] = f"{values['diagnosis']}: {values['message']}"
        self._run.log(shown, step=values["step"])

    def merge(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        self.write(values)

    def sample(self, step: int, drawn: bytes) -> None:
        """See `Writer`."""
        self._run.log({"sample": printable(drawn)}, step=step)

    def close(self) -> None:
        """See `Writer`."""
        self._run.finish()


def scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of a line, grouped: `train/bits_per_byte`, `lost_seconds/save`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            group, _, name = key.partition("_")
            grouped = f"{group}/{name}" if group in ("train", "valid") and not prefix else key
            yield f"{prefix}{grouped}", float(value)
