"""Writes text from a checkpoint to standard output, as it is made.

charlstm sample --checkpoint=runs/quickstart --prompt="ROMEO:" --temperature=0.8

The prompt is written first; --noecho leaves it out.
"""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging

from charlstm.commands import _checkpoint, _dtype, _flags, _shared
from charlstm.data.corpus import Alphabet
from charlstm.errors import UserError
from charlstm.sampling.text import decode_stream

_PROMPT = flags.DEFINE_string(
    "prompt", None, "Text to go on from; if not given, a line break, or the alphabet's first byte."
)
_PROMPT_FILE = _flags.define_path("prompt_file", None, "File whose bytes are the prompt.")
_UNKNOWN = flags.DEFINE_string(
    "unknown",
    "error",
    "Bytes of the prompt that the model does not know: error, skip, or a text in place of each.",
)
_TEMPERATURE = _flags.define_number(
    "temperature", 0.8, "0 takes the likeliest byte each time.", 0.0
)
_NUM_BYTES = flags.DEFINE_integer("num_bytes", 1000, "How many bytes to make.", 1)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "How many texts, side by side.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed, the same text.", 0, 2**32 - 1)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draw among the k likeliest bytes; 0 for all.", 0)
_TOP_P = _flags.define_number(
    "top_p", 1.0, "Draw among the likeliest bytes of this total.", 0.0, 1.0
)
_FORCE = flags.DEFINE_multi_string(
    "force", [], "LAYER:CELL=VALUE clamps a cell's state to a value, counted from 0; repeatable."
)
_ECHO = flags.DEFINE_boolean("echo", True, "Write the prompt before what follows it.")
_RAW = flags.DEFINE_boolean("raw", False, "Write the bytes as they are, no UTF-8 repaired.")


def main(argv: Sequence[str]) -> None:
    """Samples as the flags say."""
    _shared.no_more_arguments(argv)
    checkpoint_path = _checkpoint.required()
    given = _given_prompt()
    if _TOP_P.value == 0:
        raise UserError("--top_p=0 leaves nothing to draw: use --temperature=0 for the likeliest")
    import jax

    from charlstm.checkpoint.reading import read_best
    from charlstm.model.language_model import LanguageModel
    from charlstm.runtime import meshes, xla
    from charlstm.sampling import clamping, prompts, texts
    from charlstm.sampling.decode import Decoder
    from charlstm.sampling.settings import Settings

    xla.keep_compiled_programs()
    mesh = meshes.make_sampling_mesh(_NUM_SAMPLES.value)
    with jax.set_mesh(mesh):
        folder, model, _ = read_best(LanguageModel, checkpoint_path, meshes.replicated(mesh))
        clamps = clamping.parse(_FORCE.value, *model.shape)
        prompt = prompts.default(model.alphabet) if given is None else given
        symbols = prompts.encode(model.alphabet, prompt, _UNKNOWN.value)
        settings = Settings(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value, clamps)
        logging.info("checkpoint: %s", folder)
        model = _dtype.in_chosen_dtype(model)
        decoder = Decoder(_NUM_SAMPLES.value, settings, meshes.DATA_AXIS)
        pieces = decoder(texts.load(model), symbols, _NUM_BYTES.value, _SEED.value)
        _show(model.alphabet, model.alphabet.decode(symbols) if _ECHO.value else b"", pieces)


def _show(alphabet: Alphabet, prompt: bytes, pieces: Iterator[np.ndarray]) -> None:
    """Writes one text as it comes, or several one after the other: what there is when it ends.

    Args:
      alphabet: of the model.
      prompt: written before each text.
      pieces: symbols of all texts side by side, uint8 [B, n] each.
    """
    if _NUM_SAMPLES.value == 1:
        _write(itertools.chain([prompt], (alphabet.decode(piece[0]) for piece in pieces)))
        return
    rows: list[list[bytes]] = [[] for _ in range(_NUM_SAMPLES.value)]
    try:
        for piece in pieces:
            for row, drawn in zip(rows, piece, strict=True):
                row.append(alphabet.decode(drawn))
    finally:  # Ctrl-C keeps what was made
        for number, row in enumerate(rows):
            logging.info("sample %d:", number)
            _write(iter([prompt, *row]))


def _given_prompt() -> bytes | None:
    """Returns the bytes that the flags give; None if they give none."""
    if _PROMPT_FILE.value is None:
        if _PROMPT.value is None:
            return None
        prompt = os.fsencode(_PROMPT.value)  # the very bytes of the command line
    else:
        try:
            prompt = Path(_PROMPT_FILE.value).read_bytes()
        except OSError as error:
            raise UserError(f"--prompt_file={_PROMPT_FILE.value}: {error.strerror}") from error
    if not prompt:
        raise UserError("the prompt is empty: give at least one byte, such as a line break")
    return prompt


def _write(pieces: Iterator[bytes]) -> None:
    """Writes bytes as they come: as text, broken UTF-8 replaced, or as they are."""
    if _RAW.value:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    for text in decode_stream(pieces):
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
