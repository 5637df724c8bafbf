"""Where a run is told beside its own folder: TensorBoard, Weights & Biases.

Both are optional. Neither has a say in the run: what they show is written to the run folder too.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charlstm import coordination
from charlstm.errors import UserError
from charlstm.sampling.text import printable
from charlstm.training.metrics import Writer, is_figures

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id"


class Writers:
    """Several writers as one."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = writers

    def write(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.write(values)

    def amend(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.amend(values)

    def sample(self, step: int, drawn: bytes) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.sample(step, drawn)

    def close(self) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.close()


class TensorBoardWriter:
    """Event files in `tensorboard/` of the run folder: scalars, and samples as text.

    Args:
      run: the run folder.
      step: the update that the run goes on from; TensorBoard drops what an earlier process wrote
        of later ones.

    Raises:
      UserError: the extra is not installed.
    """

    def __init__(self, run: Path, step: int):
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

    def amend(self, values: Mapping[str, Any]) -> None:
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
      run: the run folder.
      project: the project's name.
      config: the configuration, to be shown there.

    Raises:
      UserError: the extra is not installed.
    """

    def __init__(self, run: Path, project: str, config: dict[str, Any]):
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

    def amend(self, values: Mapping[str, Any]) -> None:
        """See `Writer`."""
        self.write(values)

    def sample(self, step: int, drawn: bytes) -> None:
        """See `Writer`."""
        self._run.log({"sample": printable(drawn)}, step=step)

    def close(self) -> None:
        """See `Writer`."""
        self._run.finish()


def other_writers(
    run: Path, step: int, *, tensorboard: bool, wandb_project: str | None, config: dict[str, Any]
) -> list[Writer]:
    """The writers asked for beside the run folder's own; in process 0.

    Raises:
      UserError: an extra is not installed.
    """
    writers: list[Writer] = []
    if coordination.is_first():
        if tensorboard:
            writers.append(TensorBoardWriter(run, step))
        if wandb_project is not None:
            writers.append(WandbWriter(run, wandb_project, config))
    return writers


def scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics, grouped: `train/bits_per_byte`, `lost_seconds/save`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            group, _, name = key.partition("_")
            grouped = f"{group}/{name}" if group in ("train", "valid") and not prefix else key
            yield f"{prefix}{grouped}", float(value)
