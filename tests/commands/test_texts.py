"""A run and its text, in a file whose name is not UTF-8, asked for from another working folder."""

import json
import os
import shutil

import pytest
from conftest import TINY

NAME = os.fsdecode(b"caf\xe9.txt")
PRINTED = "caf\\xe9.txt"


@pytest.fixture(scope="module")
def home(charlstm, text_file, tmp_path_factory):
    """A working folder with a text and a run of it, named by relative paths. Not to be changed."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(text_file, home / NAME)
    done = charlstm("train", f"--corpus={NAME}", "--workdir=run", *TINY, cwd=home)
    assert done.returncode == 0, done.stderr
    assert f"data: {PRINTED}, " in done.stderr
    assert json.loads((home / "run" / "about.json").read_text())["corpus"]["name"] == PRINTED
    return home


@pytest.fixture
def run(charlstm, home, tmp_path):
    """Runs a command on the run, from another working folder."""
    return lambda command, *arguments: charlstm(
        command, f"--checkpoint={home / 'run'}", *arguments, cwd=tmp_path
    )


def test_evaluate_finds_the_text_from_another_working_folder(run):
    done = run("evaluate", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["corpus"], found["split"]) == (PRINTED, "valid")


def test_inspect_finds_the_text_from_another_working_folder(run, tmp_path):
    done = run("inspect", "--output=page.html", os.fsdecode(b"--regex=\xe9"))
    assert done.returncode == 0, done.stderr
    assert PRINTED in (tmp_path / "page.html").read_text()


def test_evaluate_reads_an_altered_text_of_the_run_only_if_it_is_named(run, home, tmp_path):
    shutil.copy(home / NAME, tmp_path / "copy.txt")
    (home / NAME).rename(home / "aside")
    try:
        (home / NAME).write_text("quite other words\n" * 9)
        done = run("evaluate")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert f"it is {PRINTED}, 11,999 bytes, sha256 " in done.stderr
        named = run("evaluate", f"--corpus={home / NAME}")
        assert named.returncode == 0, named.stderr
        assert f"{PRINTED} has changed since the model was trained on it" in named.stderr
        assert named.stdout.startswith(f"{PRINTED}, all: 162 bytes")
        rms = run("evaluate", "--dynamic", f"--corpus={home / NAME}")
        assert rms.returncode == 2 and "--dynamic_rule=sgd" in rms.stderr
        given = run("evaluate", "--json", "--corpus=copy.txt")
        assert json.loads(given.stdout)["split"] == "valid"  # it is the run's text
    finally:
        (home / "aside").rename(home / NAME)


def test_corpora_describes_a_text_whose_name_is_not_utf8(charlstm, home):
    done = charlstm("corpora", "describe", home / NAME)
    assert done.returncode == 0 and f"name      {PRINTED}\n" in done.stdout, done.stderr
    done = charlstm("corpora", "describe", home / NAME, "--json")
    assert json.loads(done.stdout)["name"] == PRINTED
