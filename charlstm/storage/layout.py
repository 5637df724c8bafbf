"""Names in a run folder that decide when a checkpoint counts, and of models in one file."""

CHECKPOINTS = "checkpoints"
COMMIT_FILE = "metadata/metadata"  # of a checkpoint; it is written last, and deleted first
MODEL_SUFFIX = ".safetensors"
IMPORTED_FILE = "imported.json"  # of a run folder that an import has made


def mark_of(checkpoint: str) -> str:
    """Returns the name of the object that is there while a checkpoint is written or deleted."""
    folder, slash, step = checkpoint.rpartition("/")
    return f"{folder}{slash}.{step}.unfinished"
