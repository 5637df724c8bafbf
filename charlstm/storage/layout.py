"""Names in a run folder that decide when a checkpoint counts."""

CHECKPOINTS = "checkpoints"
COMMIT_FILE = "metadata/metadata"  # of a checkpoint; it is written last, and deleted first
