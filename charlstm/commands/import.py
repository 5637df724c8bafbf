"""Makes a run folder of a model in one file: of charlstm export, or of PyTorch.

  charlstm import quickstart.safetensors --output=runs/again
  charlstm import lstm.safetensors --alphabet_of=my.txt --output=runs/mine

The run can be sampled, evaluated, and trained: charlstm train --workdir=runs/mine --corpus=my.txt.
A file of PyTorch is the state_dict of a model with one nn.LSTM, see docs/exports.md.
Any field of the configuration is set as --config.SECTION.FIELD=VALUE.
"""

from collections.abc import Sequence

from absl import logging

from charlstm.commands import _flags, _shared
from charlstm.errors import UserError
from charlstm.storage import paths

_OUTPUT = _flags.define_path("output", None, "The run folder to make.")
_ALPHABET_OF = _flags.define_path(
    "alphabet_of",
    None,
    "Text whose different bytes, in ascending order, are the symbols of a model of PyTorch.",
)

take_overrides = _shared.take_overrides


def main(argv: Sequence[str]) -> None:
    """Imports as the arguments say."""
    if len(argv) < 2:
        raise UserError("no file is named: charlstm import FILE.safetensors --output=RUN")
    _shared.no_more_arguments(argv[1:])
    if not _OUTPUT.value:
        raise UserError("--output=RUN is missing: name the run folder to make, such as runs/mine")
    from charlstm import importing
    from charlstm.importing import run

    path = _flags.expanded(argv[1])
    model = importing.read(path, _ALPHABET_OF.value, _shared.overrides)
    folder = run.write(model, _OUTPUT.value)
    for note in model.notes:
        logging.info("%s", note)
    config = model.config
    logging.info(
        "wrote %s: %d × LSTM(%d), %d symbols; charlstm train --workdir=%s%s goes on from it",
        paths.shown(folder),
        config.model.num_layers,
        config.model.hidden_size,
        model.alphabet.size,
        paths.shown(folder),
        "" if config.data.corpus else " --corpus=TEXT",
    )
