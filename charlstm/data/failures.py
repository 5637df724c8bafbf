"""Turns failures to read a text into errors that name the file and the cure."""

import contextlib
from collections.abc import Iterator

from absl import logging

from charlstm.errors import UserError


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns a failure to read what is called `name` into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot read {name!r} ({error.strerror or error}): check its name and its permissions"
        ) from error


@contextlib.contextmanager
def unpacking(name: str, kind: str) -> Iterator[None]:
    """Turns a failure to read or to unpack what is called `name` into a `UserError`.

    Args:
      name: of the file.
      kind: how it is packed, such as gzip.
    """
    try:
        with reading(name):
            try:
                yield
            except OSError as error:
                if error.errno is not None:
                    raise
                raise ValueError(error) from error  # gzip and bz2 say so that data are damaged
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"{name!r} holds {kind} data, and {error.name} is not installed: pip install "
            f"{error.name}, or unpack it first"
        ) from error
    except RuntimeError as error:  # zipfile: encrypted, or a compression that it does not know
        raise UserError(
            f"{name!r} is encrypted, or packed in a way that charlstm does not read ({error}): "
            "unpack it first, and give the folder"
        ) from error
    except Exception as error:  # the libraries have many classes for damaged data
        logging.debug("reading %s failed", name, exc_info=error)
        raise UserError(
            f"{name!r} is not a whole {kind} file ({error}): get it again, or rename it if it is "
            "text"
        ) from error
