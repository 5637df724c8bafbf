"""The JSON part of a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from charlstm.checkpoint.failures import reading
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError

# Raise it when a reader of the present one would misread what is written. Checkpoints from before
# there was a version are of version 1.
FORMAT_VERSION = 1
METRIC = "valid_bits_per_byte"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The JSON part of a checkpoint.

    Attributes:
      config: of the run.
      alphabet: of the model.
      corpus: name, sha256 and num_bytes of the text.
      clock: what a run remembers beside its arrays: seconds trained, updates skipped, diagnoses.
      metrics: of the validation at this step, if there was one.
      versions: of the libraries that wrote it.
      format_version: of the files.
    """

    config: Config
    alphabet: Alphabet
    corpus: dict[str, Any]
    clock: dict[str, Any]
    metrics: dict[str, float]
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"config": self.config.to_json(), "alphabet": self.alphabet.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Metadata":
        """Is the inverse of `to_json`."""
        config = Config.from_json(values["config"])
        alphabet = Alphabet.from_json(values["alphabet"])
        return cls(**(values | {"config": config, "alphabet": alphabet}))


def read_metadata(folder: Path) -> Metadata:
    """Reads the metadata of the checkpoint in `folder`.

    Raises:
      UserError: it is damaged, or of a newer format.
    """
    path = folder / "metadata" / "metadata"
    values = reading(folder, lambda: dict(json.loads(path.read_bytes())))
    version = values.get("format_version", 1)
    if version > FORMAT_VERSION:
        raise UserError(
            f"the checkpoint {folder} has format {version}, and this charlstm reads formats up to "
            f"{FORMAT_VERSION}: update it (pip install --upgrade charlstm)"
        )
    return reading(folder, lambda: Metadata.from_json(values))
