"""Finds the text of a run again, from what its checkpoints record of it.

A checkpoint records the text's `name`, `sha256`, `num_bytes`, and `source`: the absolute path of
the file, the folder or the pattern, empty if there was none. The run may have been moved since, be
asked for from another working folder, or have read its text from standard input.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from absl import logging

from charlstm.data.corpora import STANDARD_INPUT, Source, is_stream, open_copy, open_corpus
from charlstm.data.registry import CORPORA
from charlstm.errors import UserError
from charlstm.runtime.names import printable


def open_recorded(spec: str, recorded: Mapping[str, Any]) -> Source:
    """Opens the text with the recorded digest, wherever it is found first.

    These are tried: the recorded source, what the configuration names (from another working folder
    that may be something else, and large), the copy in the cache folder, a registered corpus. Of a
    stream, which can be read only once, the copy is tried first.

    Args:
      spec: the corpus of the run's configuration.
      recorded: what a checkpoint of the run says of its text.

    Raises:
      UserError: the text is not found or not known, or is a registered corpus that cannot be
        fetched.
    """
    wanted: str = recorded["sha256"]
    if not wanted:
        raise UserError(
            "the model was imported, and its text is not known: give one with --corpus=PATH"
        )
    copy = open_copy(wanted, recorded["name"]) if is_stream(spec) else None
    if copy is not None:
        return copy
    reasons = []
    for place in dict.fromkeys([recorded.get("source") or spec, spec]):
        try:
            if place == STANDARD_INPUT:
                _require_sent()
            found = open_corpus(place)
        except UserError as error:
            reasons.append(_what(error))
        else:
            if found.sha256 == wanted:  # under the name that it has in the run
                return dataclasses.replace(found, name=printable(recorded["name"]))
            reasons.append(f"{place!r} has other bytes")
    copy = open_copy(wanted, recorded["name"])
    if copy is not None:
        return copy
    for name, corpus in CORPORA.items():
        if corpus.digest.sha256 == wanted and name != spec:
            return open_corpus(name)
    raise UserError(
        f"the text that the model was trained on is not found ({'; '.join(reasons)}): give it with "
        f"--corpus=PATH; it is {recorded['name']}, {recorded['num_bytes']:,} bytes, sha256 "
        f"{wanted[:12]}…"
    )


def open_again(
    spec: str, recorded: Mapping[str, Any] | None = None, sha256: str | None = None
) -> Source:
    """Opens what `spec` names for a run that begins or goes on.

    What the user named counts, also if it is not the run's text. Only if it cannot be opened, or is
    a standard input to which nothing is sent, the text is found by the record.

    Args:
      spec: the text.
      recorded: see `open_recorded`; None for a run that begins.
      sha256: the digest of the text, if it is known: another process has read it already.

    Raises:
      UserError: see `open_corpus` and `open_recorded`.
    """
    if sha256 is not None and is_stream(spec):
        copy = open_copy(sha256, spec)
        if copy is not None:
            return copy
    try:
        if recorded is not None and spec == STANDARD_INPUT:
            _require_sent()
        return open_corpus(spec, sha256)
    except UserError as error:
        if recorded is None:
            raise
        found = open_recorded(spec, recorded)
        logging.info("%s; going on with the text of the run, %s", _what(error), found.file.path)
        return found


def _what(error: UserError) -> str:
    """Returns what an error says before it names the cure."""
    return str(error).partition(": ")[0]


def _require_sent() -> None:
    """Raises `UserError` if standard input is a terminal, where nobody is about to type a text."""
    if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
        raise UserError("standard input is a terminal: send a text to it, or give a file")
