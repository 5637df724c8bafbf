"""Loads configurations by name or from files."""

import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from charlstm.config.checking import near
from charlstm.config.experiment import Config
from charlstm.errors import UserError


def named_configs() -> list[str]:
    """Returns the names of the configurations that come with charlstm."""
    from charlstm import configs

    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load_config(spec: str) -> Config:
    """Loads the configuration that `--config` gives: a name, or the path of a .py or .json file.

    A Python file is run. It defines `get_config() -> Config`, and may import modules beside it. A
    JSON file is a run's `config.json`.

    Raises:
      UserError: there is no such name or file, or the file does not define a configuration.
    """
    if spec in named_configs():
        return importlib.import_module(f"charlstm.configs.{spec}").get_config()
    path = Path(os.path.expanduser(spec))
    if path.suffix not in (".py", ".json"):
        raise UserError(
            f"no configuration is named {spec!r}{near(spec, named_configs())}; the names are "
            f"{', '.join(named_configs())}, or give the path of a .py or .json file"
        )
    if not path.is_file():
        raise UserError(f"configuration file {spec!r} does not exist")
    return (_from_json if path.suffix == ".json" else _from_python)(path)


def _from_json(path: Path) -> Config:
    try:
        return Config.from_json(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise UserError(f"configuration file '{path}' is not JSON: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read configuration file '{path}': {error.strerror}") from error


def _from_python(path: Path) -> Config:
    try:
        with _importing_from(path.parent.absolute()):
            get_config = runpy.run_path(str(path)).get("get_config")
            config = get_config and get_config()
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        is_ours = isinstance(error, UserError)
        reason = str(error) if is_ours else traceback.format_exception_only(error)[-1]
        raise UserError(
            f"configuration file '{path}' failed{_place(error, path)}: {' '.join(reason.split())}"
        ) from error
    if get_config is None:
        raise UserError(f"configuration file '{path}' must define get_config()")
    if not isinstance(config, Config):
        raise UserError(f"get_config() in '{path}' must return a charlstm.config.Config")
    return config


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Lets code import the modules in a folder; forgets them: another folder may have the same."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # it is gone already
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
                del sys.modules[name]


def _place(error: BaseException, path: Path) -> str:
    """Returns in words where the file, or one beside it, raised an error."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    folder = path.absolute().parent
    words = ""
    for name, line in places:
        file = Path(name).absolute()
        if file.parent == folder and file.is_file():
            words = f" at line {line} of {file.name}"
    return words
