"""The exceptions that a user is meant to see, each a single line."""

import unicodedata


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do about it.

    The command line prints the message and exits with code 2.
    """


class TrainingFailed(Exception):
    """A run that cannot go on, through no fault of its input.

    The command line prints the message and exits with code 1.
    """


class ServingFailed(Exception):
    """A server that cannot go on, through no fault of its input.

    The command line prints the message and exits with code 1.
    """


class Preempted(Exception):
    """A run that was asked to stop and has saved everything it did.

    The command line prints the message and exits with `code`.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def in_one_line(error: BaseException, length: int | None = None) -> str:
    """Returns the message of an exception as one line of at most so many characters.

    Control characters, which a terminal would obey, become U+FFFD.
    """
    line = " ".join(str(error).split())[:length]
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in line)
