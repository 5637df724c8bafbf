"""Names in a run folder that decide when a checkpoint counts."""

CHECKPOINTS = "checkpoints"
COMMIT_FILE = "metadata/metadata"  # of a checkpoint; it is written last, and deleted first


def mark_of(checkpoint: str) -> str:
    """Returns the name of the object that is there while a checkpoint is written or deleted."""
    folder, slash, step = checkpoint.rpartition("/")
    return f"{folder}{slash}.{step}.unfinished"
