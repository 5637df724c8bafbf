"""Names of files as they can be shown."""


def printable(name: str) -> str:
    r"""Returns a name, or a text with names in it, that can be encoded as UTF-8.

    A byte of a name that is not UTF-8 becomes its escape, as in `caf\xe9.txt`.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
