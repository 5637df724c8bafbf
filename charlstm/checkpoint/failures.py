"""Failures of Orbax and of the file system, turned into one line for the user."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from absl import logging

from charlstm.errors import UserError, in_one_line
from charlstm.runtime import coordination
from charlstm.storage import paths

T = TypeVar("T")


class DamagedCheckpoint(UserError):
    """Reports a checkpoint that cannot be read.

    Attributes:
      folder: of the checkpoint; the file of an exported model.
      reason: why, in a few words.
    """

    def __init__(self, folder: Path, reason: str):
        self.folder, self.reason = folder, reason
        cure = (
            "fetch it again, or export it again with charlstm export"
            if folder.is_file()
            else "give the run folder, and the best one that is whole is used"
        )
        super().__init__(
            f"the checkpoint {folder} is damaged or no checkpoint of charlstm ({reason}): {cure}"
        )


def none_is_whole(damaged: Sequence[DamagedCheckpoint], otherwise: str) -> UserError:
    """Returns the error of a run folder all of whose checkpoints are damaged.

    Args:
      damaged: all of them, the one that would have been used first.
      otherwise: what the user can do but bring one back.
    """
    first = damaged[0]
    return UserError(
        f"no checkpoint in {first.folder.parent} is whole ({first.folder.name}: {first.reason}): "
        f"bring one back, or {otherwise}"
    )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a failure to write a checkpoint below `folder` into a `UserError`."""
    try:
        yield
    except UserError:  # of a store: it says what to do
        raise
    except Exception as error:  # Orbax raises exceptions of no class of its own
        if coordination.is_loss_of_a_process(error):
            raise
        logging.debug("saving failed", exc_info=error)
        raise UserError(
            f"could not save to {folder}: {_reason(error)}{paths.where_copied(folder)}; make room "
            "or choose another --workdir; "
            "checkpoints saved before are intact, and the same command goes on from the last of "
            "them"
        ) from error


def reading(folder: Path, read: Callable[[], T]) -> T:
    """Returns the result of `read`; turns its failure into a `DamagedCheckpoint`."""
    try:
        with warnings.catch_warnings():
            # Orbax warns that another topology wrote the file: that is our everyday case.
            warnings.simplefilter("ignore")
            return read()
    except Exception as error:  # Orbax raises exceptions of no class of its own
        if coordination.is_loss_of_a_process(error):
            raise
        logging.debug("reading %s failed", folder, exc_info=error)
        raise DamagedCheckpoint(folder, _reason(error)) from error


def _reason(error: BaseException) -> str:
    if "No space left on device" in str(error):
        return "no space left on device"
    text = in_one_line(error.__cause__ or error) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
