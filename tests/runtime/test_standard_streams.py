"""Standard streams that are closed, full, or of another encoding, in real processes."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def redirected(charlstm):
    """Runs a command behind redirections of a shell, such as `>&-`, which closes its output."""

    def run(redirections, *arguments, **options):
        prefix = ("sh", "-c", f'exec "$@" {redirections}', "sh")
        return charlstm(*arguments, prefix=prefix, **options)

    return run


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", [("corpora",), ("help",)], ids=" ".join)
def test_output_that_cannot_be_written_is_one_line_and_code_2(redirected, redirection, arguments):
    done = redirected(redirection, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("charlstm: cannot write to standard output (")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_command_does_without_standard_error(charlstm, redirected, redirection):
    done = redirected(redirection, "corpora", "describe", "-", input="some text " * 99)
    wanted = charlstm("corpora", "describe", "-", input="some text " * 99)
    assert wanted.returncode == 0 and "reading the corpus" in wanted.stderr
    assert (done.returncode, done.stdout) == (0, wanted.stdout)
    assert redirected(redirection, "corpora", "nothing").returncode == 2


def test_a_closed_standard_input_is_one_line_and_code_2(redirected):
    done = redirected("<&-", "corpora", "describe", "-")
    assert done.returncode == 2 and done.stdout == ""
    assert "charlstm: standard input is closed: send a text" in done.stderr.splitlines()[-1]


def test_a_reader_that_goes_away_is_no_error(environment):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", "corpora"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_file_takes_the_place_of_a_closed_stream():
    code = (
        "import os, sys\n"
        "from charlstm.runtime import standard_streams\n"
        "with standard_streams.usable():\n"
        "    opened = os.open('/dev/zero', os.O_RDONLY)\n"
        "    os.write(2, b'of a C library')\n"
        "    sys.exit(opened)\n"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == 3


def test_names_in_any_script_are_printed_in_any_encoding(charlstm, environment, tmp_path):
    path = tmp_path / "naïve.txt"
    path.write_text("some text " * 99)
    ascii_only = environment | {"PYTHONIOENCODING": "ascii"}
    shown = charlstm("corpora", "describe", path, env=ascii_only)
    assert shown.returncode == 0 and "name      na\\xefve.txt\n" in shown.stdout, shown.stderr
    found = charlstm("corpora", "describe", path, "--json", env=ascii_only)
    assert json.loads(found.stdout)["name"] == "naïve.txt"
