"""The standard streams: always open, and with failures that a user can read.

A closed stream is opened as /dev/null: so no file takes its number, in which what C libraries write
would end up. Input that was closed cannot be read. Output that cannot be written, because it was
closed or its disk is full, is a `UserError`. Errors that cannot be written are left out.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from charlstm.errors import UserError


@contextlib.contextmanager
def usable() -> Iterator[None]:
    r"""Makes the standard streams of this process usable, to its end.

    Characters that an encoding does not have are written as escapes, such as `\xef`.
    """
    _open_closed()
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(UserError, OSError):  # the code of a command that failed stays
            sys.stdout.flush()


def _open_closed() -> None:
    """Opens what is closed, also for the programs that this process becomes or starts."""
    # Opened the wrong way around, input cannot be read and output cannot be written.
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # its number is the lowest that is free
            os.set_inheritable(number, True)


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    """Returns a text stream set up as the one before it, which is None if it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is still in a buffer must not fail once more when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise UserError(
                f"cannot write to standard output ({error.strerror}): send it to a file or a "
                "program that takes it"
            ) from error


class _Errors(io.FileIO):
    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)
