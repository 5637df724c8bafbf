"""The models that come with charlstm, by their names."""

from pathlib import Path

import charlstm
from charlstm.config.checking import near
from charlstm.storage import paths
from charlstm.storage.layout import MODEL_SUFFIX

FOLDER = Path(charlstm.__file__).parent / "shipped"


def names() -> list[str]:
    """Returns the names, in order."""
    return sorted(path.stem for path in FOLDER.glob(f"*{MODEL_SUFFIX}"))


def find(name: str | Path) -> Path | None:
    """Returns the file of the model of a name; None if there is none.

    A file or folder of that name in the working directory comes first: then it is None too.
    """
    is_shipped = str(name) in names() and not Path(name).exists()
    return FOLDER / f"{name}{MODEL_SUFFIX}" if is_shipped else None


def absolute(path: str | Path) -> str:
    """Returns a path as it can be recorded: of a model that comes with charlstm its name."""
    return str(path) if find(path) else paths.absolute(path)


def hidden(name: str | Path) -> str:
    """Returns that a file or folder hides the model of that name; empty if it does not."""
    is_hidden = str(name) in names() and Path(name).exists()
    return f"; it hides the model {name} that comes with charlstm" if is_hidden else ""


def hint(name: str | Path) -> str:
    """Returns a hint at the names if one is like this one; empty if none is."""
    alike = near(str(name), names())
    return f"{alike}; the models that come with charlstm: {', '.join(names())}" if alike else ""
