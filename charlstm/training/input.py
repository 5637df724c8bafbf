"""The text of a run, the same in all its processes."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from charlstm.config import DataConfig
from charlstm.data.corpus import Corpus
from charlstm.data.encoding import encoding_note
from charlstm.data.mapped import release
from charlstm.data.recorded import open_again
from charlstm.errors import UserError
from charlstm.runtime import coordination

_PROBES, _PROBE_BYTES = 64, 4096


def load_shared_corpus(data: DataConfig, recorded: Mapping[str, Any] | None = None) -> Corpus:
    """Opens the corpus of a configuration, the same in all processes.

    Process 0 opens and hashes it first, and notes in the log if it is not in UTF-8, as far as that
    shows quickly. The others map the file and compare its size and a few thousand bytes.

    Args:
      data: names the corpus and the sizes of its splits.
      recorded: what a checkpoint says of the text of a run that goes on: helps if the corpus cannot
        be opened under its name.

    Raises:
      UserError: see `open_again` and `split_bounds`; or processes have different texts.
    """

    def load(sha256: str | None = None) -> Corpus:
        source = open_again(data.corpus, recorded, sha256)
        corpus = Corpus.of(source, data.valid_size, data.test_size)
        note = encoding_note(corpus.data) if coordination.is_first() else ""
        if note:
            logging.warning("%s", note)
        return corpus

    if coordination.is_single_process():
        return load()
    corpus: Corpus | None = None

    def describe() -> str:
        nonlocal corpus
        try:
            corpus = load()
        except UserError as error:
            return json.dumps({"error": str(error)})
        return json.dumps({"sha256": corpus.sha256, "probe": _probe(corpus.data)})

    said = json.loads(coordination.broadcast(describe))
    if "error" in said:
        raise UserError(said["error"])
    if corpus is None:
        corpus = load(said["sha256"])
        if _probe(corpus.data) != said["probe"]:
            raise UserError(
                f"process {jax.process_index()} has another text than process 0 under the name of "
                f"{data.corpus}, {len(corpus.data)} bytes of it: give a path that all share"
            )
    return dataclasses.replace(corpus, sha256=said["sha256"])


def _probe(text: np.ndarray) -> list[object]:
    """Returns the size of a text, and a digest of pieces from all over it."""
    digest = hashlib.sha256()
    for start in np.linspace(0, max(0, len(text) - _PROBE_BYTES), _PROBES).astype(int):
        digest.update(text[start : start + _PROBE_BYTES].tobytes())
    release(text)
    return [len(text), digest.hexdigest()]
