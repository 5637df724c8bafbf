r"""A page that shows what a model's cells do as it reads a text.

  charlstm inspect runs/quickstart --corpus=my.txt --output=inspect.html
  charlstm inspect --checkpoint=runs/quickstart --regex='\bthe\b'

The text is coloured by any cell, or by how surprising each byte was; the cells that best tell
quotes, brackets, the place in the line, names and more are found by a score on a held-out half.
"""

from collections.abc import Sequence

from absl import flags, logging

from charlstm.commands import _checkpoint, _flags, _shared
from charlstm.runtime.names import printable

_CORPUS = flags.DEFINE_string(
    "corpus", None, "Text to read; if not given, the validation split of the model's own."
)
_OUTPUT = _flags.define_path("output", "inspect.html", "The page to write.")
_REGEX = flags.DEFINE_multi_string(
    "regex", [], "Find the cells that follow its matches too (or its first group's); repeatable."
)
_MAX_BYTES = flags.DEFINE_integer("max_bytes", 2**20, "Read no more of the text than this.", 1)
_WINDOW = flags.DEFINE_integer(
    "window", 0, "First byte of the part of which the page holds all cells.", 0
)


def main(argv: Sequence[str]) -> None:
    """Inspects as the arguments say."""
    checkpoint_path = _checkpoint.named_by(argv)
    output = _shared.page_to_write(_OUTPUT.value)
    from charlstm.inspection.inspect import inspect

    page = inspect(
        checkpoint_path,
        _CORPUS.value,
        patterns=_REGEX.value,
        max_bytes=_MAX_BYTES.value,
        window_start=_WINDOW.value,
        output=output,
    )
    for line in page:
        print(printable(line))
    logging.info("open %s in a browser", output)
