"""The flag of the commands that read a checkpoint."""

from collections.abc import Sequence

from charlstm.commands._flags import define_path, expanded
from charlstm.errors import UserError

CHECKPOINT = define_path(
    "checkpoint",
    None,
    "Run folder (its best checkpoint is used), folder of one checkpoint, file of charlstm export, "
    "or name of a model that comes with charlstm.",
)


def required() -> str:
    """Returns the value of `--checkpoint`.

    Raises:
      UserError: it is missing.
    """
    if not CHECKPOINT.value:
        raise UserError("--checkpoint=RUN_OR_CHECKPOINT is missing: name a run folder")
    return CHECKPOINT.value


def named_by(argv: Sequence[str]) -> str:
    """Returns the checkpoint that the first positional argument names, or else `--checkpoint`.

    Raises:
      UserError: it is missing, given twice, or more arguments follow.
    """
    match argv[1:]:
        case []:
            return required()
        case [path] if CHECKPOINT.value in (None, expanded(path)):
            return expanded(path)
        case [path]:
            raise UserError(f"{path} and --checkpoint={CHECKPOINT.value} differ: give one of them")
        case _:
            raise UserError(f"unexpected argument {argv[2]!r}; flags begin with --")
