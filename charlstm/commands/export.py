"""Writes a trained model to a file that other programs read, and charlstm too.

  charlstm export runs/quickstart --output=quickstart.safetensors
  charlstm export runs/quickstart --output=quickstart.safetensors --dtype=bfloat16
  charlstm export runs/quickstart --format=web --output=page

A safetensors file is used like a checkpoint: charlstm sample --checkpoint=quickstart.safetensors.
A page runs the model in a browser: open page/index.html, type a prompt, and see it write.
docs/exports.md shows each format, and how PyTorch and others read it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from charlstm.commands import _checkpoint, _flags, _shared
from charlstm.errors import UserError
from charlstm.storage import paths

_FORMAT = flags.DEFINE_string(
    "format", None, "Format of the file; if not given, the one that the name of the output tells."
)
_OUTPUT = _flags.define_path("output", None, "The file to write; for web the folder of the page.")
_DTYPE = flags.DEFINE_string(
    "dtype", None, "Of the weights: float32, or bfloat16, which takes half the space."
)
_ONNXRUNTIME_WEB = _flags.define_path(
    "onnxruntime_web", None, "For web: the package's .tgz file, if npm is not to fetch it."
)


def main(argv: Sequence[str]) -> None:
    """Exports as the arguments say."""
    checkpoint_path = _checkpoint.named_by(argv)
    if not _OUTPUT.value:
        raise UserError("--output=FILE is missing: name the file to write, such as my.safetensors")
    from charlstm import exporting

    kind = _FORMAT.value or _format_of(_OUTPUT.value)
    options = {} if _ONNXRUNTIME_WEB.value is None else {"onnxruntime_web": _ONNXRUNTIME_WEB.value}
    exporting.check(kind, Path(_OUTPUT.value), _DTYPE.value, options)
    output = _shared.page_to_write(_OUTPUT.value)
    for line in exporting.export(checkpoint_path, kind, output, _DTYPE.value, **options):
        logging.info("%s", line)
    logging.info("wrote %s", paths.shown(output))


def _format_of(output: str) -> str:
    """Returns the format that a file's name tells.

    Raises:
      UserError: it tells none.
    """
    from charlstm.exporting import FORMATS

    suffixes = {found.suffix: name for name, found in FORMATS.items() if found.suffix}
    suffix = Path(output).suffix
    if suffix not in suffixes:
        raise UserError(
            f"--output={output} tells no format: give --format={'|'.join(FORMATS)}, or a name that "
            f"ends in {', '.join(suffixes)}"
        )
    return suffixes[suffix]
