"""Prompts: what a text begins with if nothing is given, and bytes that a model does not know."""

from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from charlstm.errors import UserError

if TYPE_CHECKING:
    from charlstm.data.corpus import Alphabet

ERROR, SKIP = "error", "skip"


def default(alphabet: "Alphabet") -> bytes:
    """Returns a line break or, for a model that knows none, the first byte of its alphabet.

    It is what an evaluation puts before a text, too.
    """
    return alphabet.decode(alphabet.encode_table[list(b"\n")])


def encode(alphabet: "Alphabet", prompt: bytes, unknown: str = ERROR) -> np.ndarray:
    """Returns the symbols of a prompt, uint8 [N].

    Args:
      alphabet: of the model.
      prompt: at least one byte.
      unknown: what becomes of each byte outside the alphabet: `error` raises, `skip` leaves it out,
        and any other text takes its place.

    Raises:
      UserError: there is such a byte, the text in its place has one, or nothing is left.
    """
    if unknown == ERROR:
        try:
            return alphabet.encode(prompt)
        except UserError as error:
            raise UserError(
                f"{error}; of a prompt, --unknown=skip leaves such bytes out, and --unknown=TEXT "
                "replaces them"
            ) from error
    replacement = b"" if unknown == SKIP else unknown.encode("utf-8", "surrogateescape")
    if _outside(alphabet, replacement):
        raise UserError(
            f"--unknown={unknown} has bytes that the model does not know either: choose another "
            "text, or skip"
        )
    outside = _outside(alphabet, prompt)
    read = prompt
    for byte in set(outside):
        read = read.replace(bytes([byte]), replacement)
    if not read:
        raise UserError("the model knows no byte of the prompt: give another")
    if outside:
        done = f"replaced by {unknown!r}" if replacement else "left out"
        logging.info("prompt: %d of %d bytes are unknown and %s", len(outside), len(prompt), done)
    return alphabet.encode(read)


def _outside(alphabet: "Alphabet", data: bytes) -> bytes:
    return data.translate(None, alphabet.symbols)
