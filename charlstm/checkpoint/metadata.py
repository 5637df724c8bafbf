"""The JSON part of a checkpoint."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from charlstm.checkpoint import digests
from charlstm.checkpoint.failures import DamagedCheckpoint, reading
from charlstm.config import Config
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.storage.layout import COMMIT_FILE

# Raise it when a reader of the present one would misread what is written. Checkpoints from before
# there was a version are of version 1. Version 2 has digests of all files.
FORMAT_VERSION = 2
METRIC = "valid_bits_per_byte"

# Of a model that was imported without its text.
UNKNOWN_CORPUS: dict[str, Any] = {"name": "unknown", "sha256": "", "num_bytes": 0}

IMPORTED = "imported"  # in the clock of the checkpoint that an import makes: true

_CHECKSUM = "checksum"  # of all other values


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The JSON part of a checkpoint.

    Attributes:
      config: of the run.
      alphabet: of the model.
      corpus: name, sha256 and num_bytes of the text; source, where it was.
      clock: what a run remembers beside its arrays: seconds trained, updates skipped, diagnoses.
      metrics: of the validation at this step, if there was one.
      versions: of the libraries that wrote it.
      digests: of all other files of the checkpoint, see `digests.seal`; none in version 1.
      format_version: of the files.
    """

    config: Config
    alphabet: Alphabet
    corpus: dict[str, Any]
    clock: dict[str, Any]
    metrics: dict[str, float]
    versions: dict[str, str]
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def is_imported(self) -> bool:
        """True for a model of another program, or of a file, that no update has changed yet."""
        return self.clock.get(IMPORTED, False) is True

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"config": self.config.to_json(), "alphabet": self.alphabet.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Metadata":
        """Is the inverse of `to_json`.

        Raises:
          ValueError: the values are not what `to_json` returns, whoever wrote them.
        """
        config = Config.from_json(values["config"])
        alphabet = Alphabet.from_json(values["alphabet"])
        found = cls(**(values | {"config": config, "alphabet": alphabet}))
        for name in ("corpus", "clock", "metrics", "versions", "digests"):
            _require(isinstance(getattr(found, name), dict), name)
        _require(type(found.format_version) is int, "format_version")
        corpus, clock = found.corpus, found.clock
        _require(all(isinstance(corpus.get(key), str) for key in ("name", "sha256")), "corpus")
        _require(isinstance(corpus.get("num_bytes"), int), "corpus")
        _require(all(_is_number(clock.get(key)) for key in ("seconds", "skipped")), "clock")
        _require(all(map(_is_number, found.metrics.values())), "metrics")
        texts = [*found.versions.values(), *found.digests.values()]
        _require(all(isinstance(text, str) for text in texts), "versions or digests")
        _require(not any(".." in Path(name).parts for name in found.digests), "digests")
        return found


def metadata_file(folder: Path) -> Path:
    """Returns the path of the JSON part of the checkpoint in `folder`."""
    return folder / COMMIT_FILE


def encoded(metadata: Metadata) -> str:
    """Returns the content of the metadata file: JSON with a checksum of its own."""
    values = json.loads(json.dumps(metadata.to_json()))  # as they will be read
    return json.dumps(values | {_CHECKSUM: _checksum(values)})


def read_metadata(folder: Path) -> Metadata:
    """Reads the metadata of the checkpoint in `folder`.

    Raises:
      DamagedCheckpoint: there are none, or they are not as they were written.
      UserError: they are of a newer format.
    """
    values = reading(folder, lambda: dict(json.loads(metadata_file(folder).read_bytes())))
    checksum, version = values.pop(_CHECKSUM, None), values.get("format_version", 1)
    if checksum is not None and checksum != _checksum(values):
        raise DamagedCheckpoint(folder, "its metadata are not as they were written")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(
            f"the checkpoint {folder} has format {version}, and this charlstm reads formats up to "
            f"{FORMAT_VERSION}: update it (pip install --upgrade charlstm)"
        )
    if version != 1 and checksum is None:
        raise DamagedCheckpoint(folder, "its metadata have no checksum")
    values["format_version"] = version
    return reading(folder, lambda: Metadata.from_json(values))


def _checksum(values: dict[str, Any]) -> str:
    return digests.of_text(json.dumps(values, sort_keys=True))


def _require(holds: bool, name: str) -> None:
    if not holds:
        raise ValueError(f"its metadata have no valid {name}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
