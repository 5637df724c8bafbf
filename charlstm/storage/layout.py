"""Names in a run folder that several parts need, and of models in one file."""

CHECKPOINTS = "checkpoints"
COMMIT_FILE = "metadata/metadata"  # of a checkpoint; it is written last, and deleted first
MODEL_SUFFIX = ".safetensors"
IMPORTED_FILE = "imported.json"  # of a run folder that an import has made
PROFILE_FOLDER = "profile"  # of a run, with the traces of `--profile`


def mark_of(checkpoint: str) -> str:
    """Returns the name of the object that is there while a checkpoint is written or deleted."""
    folder, slash, step = checkpoint.rpartition("/")
    return f"{folder}{slash}.{step}.unfinished"
