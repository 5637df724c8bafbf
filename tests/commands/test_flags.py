"""Flags that are paths or numbers, of every command."""

import json
import subprocess
import sys

import pytest

PATHS = {
    "train": ("workdir", "init_from", "config"),
    "sample": ("checkpoint", "prompt_file"),
    "evaluate": ("checkpoint",),
    "inspect": ("checkpoint", "output"),
    "report": ("output",),
}

# Parses flags as the command does, and prints their values.
PARSE = """
import importlib, json, sys
from absl import flags
importlib.import_module("charlstm.commands." + sys.argv[1])
flags.FLAGS(["charlstm", *sys.argv[2:]])
print(json.dumps(flags.FLAGS.flag_values_dict()))
"""

# Prints the names of a command's flags that are numbers, and which of their values are refused.
NUMBERS = """
import importlib, json, sys
from absl import flags
importlib.import_module("charlstm.commands." + sys.argv[1])
modules = flags.FLAGS.flags_by_module_dict()
own = [flag for name in modules if name.startswith("charlstm") for flag in modules[name]]
numbers = [flag for flag in own if isinstance(flag.parser, flags.FloatParser)]
refused = []
for flag in numbers:
    for text in "nan", "inf", "-inf", "1e999":
        try:
            flag.parse(text)
        except flags.IllegalFlagValueError as error:
            refused.append(f"{flag.name}={text}" in str(error))
print(json.dumps([[flag.name for flag in numbers], refused]))
"""


def printed(code, *arguments, **options):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", PATHS)
def test_a_tilde_means_the_home_folder_in_every_path_flag(command, environment, tmp_path):
    given = [f"--{name}=~/a folder/{name}" for name in PATHS[command]]
    values = printed(PARSE, command, *given, env=environment | {"HOME": str(tmp_path)})
    for name in PATHS[command]:
        assert values[name] == f"{tmp_path}/a folder/{name}"


@pytest.mark.parametrize("command", ["corpora", "evaluate", "sample"])
def test_every_number_is_finite_or_refused(command, environment):
    names, refused = printed(NUMBERS, command, env=environment)
    assert len(names) >= 2 and refused == [True] * 4 * len(names)


def test_a_run_to_report_may_be_in_the_home_folder(charlstm, environment, tmp_path):
    done = charlstm("report", "~/absent", env=environment | {"HOME": str(tmp_path)})
    assert done.returncode == 2 and f"{tmp_path}/absent" in done.stderr


def test_a_home_folder_that_is_not_there_is_one_line(charlstm):
    done = charlstm("train", "--workdir=~nobody_of_that_name/run")
    assert done.returncode == 2 and done.stdout == ""
    assert "./~nobody_of_that_name/run" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "report", "corpora", "compile"])
def test_a_flag_that_a_command_does_not_read_is_refused(charlstm, command):
    done = charlstm(command, "--checkpoint=runs/mine")
    assert done.returncode == 2
    assert "Unknown command line flag 'checkpoint'" in done.stderr
    assert "--checkpoint" not in charlstm(command, "--help").stdout
