"""The commands by their names, their flags, and how each way to end becomes an exit code."""

import ast
import difflib
import importlib
import pkgutil
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from logging import Formatter, LogRecord
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags, logging

from charlstm import commands
from charlstm.errors import Preempted, ServingFailed, TrainingFailed, UserError, in_one_line
from charlstm.runtime import preemption
from charlstm.runtime.preemption import EXIT_INTERRUPTED, EXIT_SAVED
from charlstm.storage import paths

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

# The modules of flags that several commands have.
_SHARED_FLAGS = ("_checkpoint", "_dtype")


def run(argv: Sequence[str]) -> int:
    """Runs the command of a process's arguments; returns the exit code that it is to end with."""
    try:
        code = main(argv)
    except Exception:
        traceback.print_exc()
        code = EXIT_FAILED
    if code in (0, EXIT_SAVED, EXIT_INTERRUPTED):
        preemption.ignore()
    if code in (EXIT_FAILED, EXIT_BAD_INPUT) and "charlstm.runtime.coordination" in sys.modules:
        # One of several processes that fails must not wait for the others to end.
        sys.modules["charlstm.runtime.coordination"].leave(code)
    return code


def main(argv: Sequence[str]) -> int:
    """Runs `argv[1]` with the arguments behind it; returns the exit code."""
    try:
        code = _run_command(argv)
        sys.stdout.flush()  # raises if the output cannot be written
        return code
    except (UserError, TrainingFailed, ServingFailed) as error:
        print(f"charlstm: {paths.shown(in_one_line(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED
    except Preempted as end:
        if str(end):
            print(f"charlstm: {end}", file=sys.stderr)
        return end.code
    except KeyboardInterrupt:
        advice = "; a run goes on from its last checkpoint" if argv[1:2] == ["train"] else ""
        print(f"charlstm: interrupted{advice}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        return 0


def _run_command(argv: Sequence[str]) -> int:
    if len(argv) < 2 or argv[1] in ("help", "--help", "-h"):
        print(_overview())
        return 0
    module = _command(argv[1])
    arguments = [f"{argv[0]} {argv[1]}", *argv[2:]]
    if {"--help", "-h", "-help"} & set(arguments):
        print(_help(module))
        return 0
    _set_up_logging()
    try:
        app.run(module.main, argv=arguments, flags_parser=_flags_parser(module))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _set_up_logging() -> None:
    """Our own notes on standard error, plain; the libraries' notes to their developers nowhere.

    What goes wrong in a library reaches us as an exception, and the user as our one line.
    """
    package = str(Path(__file__).parent)
    handler = logging.get_absl_handler()
    handler.addFilter(lambda record: record.pathname.startswith(package))
    handler.setFormatter(_NotesFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    warnings.filterwarnings("ignore", module="jax|flax|orbax")
    sys.unraisablehook = _unraisablehook


class _NotesFormatter(Formatter):
    """Shows the addresses of what has a copy on this machine."""

    def format(self, record: LogRecord) -> str:
        return paths.shown(super().format(record))


def _unraisablehook(unraisable: Any) -> None:
    """Keeps exceptions that nobody can catch for `--verbosity=1`.

    When one file of a checkpoint cannot be read or written, others are still under way, and each of
    them fails on its own behind the one line that says what the matter is.
    """
    error = unraisable.exc_value
    logging.debug("ignored in %r: %s", unraisable.object, error, exc_info=error)


def _flags_parser(module: ModuleType) -> Callable[[list[str]], list[str]]:
    """A parser that turns absl's complaints into a `UserError`.

    A command that takes configuration fields (`--config.model.hidden_size=512`) has
    `take_overrides(argv)`, which picks them out before absl sees the rest.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            if hasattr(module, "take_overrides"):
                argv = module.take_overrides(argv)
            return flags.FLAGS(argv)
        except flags.Error as error:
            raise UserError(f"{error}; `{argv[0]} --help` lists the flags") from error

    return parse


def _names() -> list[str]:
    found = pkgutil.iter_modules(commands.__path__)
    return [module.name for module in found if not module.name.startswith("_")]


def _command(name: str) -> ModuleType:
    if name not in _names():
        near = difflib.get_close_matches(name, _names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"no command {name!r}{hint}; the commands are {', '.join(_names())}")
    return importlib.import_module(f"charlstm.commands.{name}")


def _overview() -> str:
    lines = ["usage: charlstm COMMAND [FLAGS]", ""]
    for name in _names():
        source = (Path(commands.__path__[0]) / f"{name}.py").read_text("utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        lines.append(f"  {name:<10} {docstring.partition(chr(10))[0]}")
    return "\n".join([*lines, "", "`charlstm COMMAND --help` describes one."])


def _help(module: ModuleType) -> str:
    """Returns a command's docstring, its flags, and what its `extra_help() -> str` adds, if any."""
    shared = [f"charlstm.commands.{name}" for name in _SHARED_FLAGS]
    declared = flags.FLAGS.flags_by_module_dict()
    own = [flags.FLAGS.module_help(module.__name__)]
    own += [flags.FLAGS.module_help(name) for name in shared if name in declared]
    if hasattr(module, "extra_help"):
        own.append(f"\n{module.extra_help()}")
    return "\n".join([(module.__doc__ or "").strip(), *own])
