"""Loads configurations by name or from files."""

import importlib
import json
import pkgutil
import runpy
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

    A Python file defines `get_config() -> Config`; a JSON file is a run's `config.json`.

    Raises:
      UserError: there is no such name or file, or the file does not define a configuration.
    """
    if spec in named_configs():
        return importlib.import_module(f"charlstm.configs.{spec}").get_config()
    path = Path(spec)
    if path.suffix not in (".py", ".json"):
        raise UserError(
            f"no configuration is named {spec!r}{near(spec, named_configs())}; the names are "
            f"{', '.join(named_configs())}, or give the path of a .py or .json file"
        )
    if not path.is_file():
        raise UserError(f"configuration file {spec!r} does not exist")
    if path.suffix == ".json":
        try:
            return Config.from_json(json.loads(path.read_bytes()))
        except ValueError as error:
            raise UserError(f"configuration file {spec!r} is not JSON: {error}") from error
    try:
        config = runpy.run_path(spec)["get_config"]()
    except UserError:
        raise
    except Exception as error:  # whatever the user's own code raises
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"configuration file {spec!r} failed ({reason}); it must define get_config()"
        ) from error
    if not isinstance(config, Config):
        raise UserError(f"get_config() in {spec!r} must return a charlstm.config.Config")
    return config
