"""Libraries that only some formats need."""

import importlib
from types import ModuleType

from charlstm.errors import UserError


def load(library: str, kind: str) -> ModuleType:
    """Returns a library that a format needs; the extra of the format's name installs it.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"--format={kind} needs an extra: pip install 'charlstm[{kind}]'"
        ) from error
