"""Huge pages are asked for where that is of use, once, and never against the user's word."""

import os
import subprocess
import sys

import pytest

from charlstm.runtime import huge_pages

ASKED = f"{huge_pages.TUNABLE}=1"


@pytest.fixture
def mode(tmp_path, monkeypatch):
    """A file that says when the system hands out huge pages; and nothing is asked for yet."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_MODE", path)
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    return path


def test_system_that_waits_to_be_asked_is_asked(mode, monkeypatch):
    assert huge_pages.environment() == {huge_pages.VARIABLE: ASKED}
    monkeypatch.setenv(huge_pages.VARIABLE, "glibc.malloc.check=1")
    assert huge_pages.environment() == {huge_pages.VARIABLE: f"glibc.malloc.check=1:{ASKED}"}


@pytest.mark.parametrize("enabled", ["[always] madvise never", "always madvise [never]", None])
def test_system_that_need_not_be_asked_is_not(mode, enabled):
    mode.unlink() if enabled is None else mode.write_text(enabled)
    assert huge_pages.environment() == {}


@pytest.mark.parametrize("library", ["glibc 2.34", "musl", None])
def test_older_or_other_libraries_are_not_asked(mode, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    assert huge_pages.environment() == {}


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_user_has_the_last_word(mode, monkeypatch, value):
    monkeypatch.setenv(huge_pages.VARIABLE, f"{huge_pages.TUNABLE}={value}")
    assert huge_pages.environment() == {}


RESTARTED = """
import os, sys
from pathlib import Path
from charlstm.runtime import huge_pages
print(os.getpid(), os.environ.get(huge_pages.VARIABLE), *sys.argv[2:])
huge_pages._MODE = Path(sys.argv[1])
os.confstr = lambda name: "glibc 2.36"
huge_pages.restart()
"""


def test_process_begins_once_more_with_the_same_arguments_and_number(mode):
    command = [sys.executable, "-c", RESTARTED, str(mode), "a b", "--c=d"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    number = first.split()[0]
    assert first == f"{number} None a b --c=d"
    assert second == f"{number} {ASKED} a b --c=d"
