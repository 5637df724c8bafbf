"""Downloads one source archive of a package with pip's own machinery, building nothing.

A script, run by its path in whichever Python has a pip; it may import nothing but pip and the
standard library:

  python pip_sdist.py PACKAGE VERSION FOLDER

Why not `pip download`: for a source archive it always asks the package's build backend for
metadata, so it runs the package's code and installs its build requirements; no option turns that
off. Why not an HTTP client of our own: the user's pip knows their index, mirrors, find-links,
proxies, certificates and passwords, and `PipSession` and `PackageFinder` honour them all. These
are not a public interface, but what is used here reads the same in pip 22 to 26; if it ever breaks,
the caller reports it as any other failed fetch. Nothing here vouches for the file: the
caller compares it with the pinned sha256 before reading it.
"""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from pip._internal.commands import create_command


def main(package: str, version: str, folder: str) -> None:
    """Puts the source archive of `package` at `version` into `folder`."""
    logging.basicConfig(level=logging.DEBUG)  # where pip tells why an index failed
    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-binary=:all:"])
    session = command._build_session(options)
    finder = command._build_package_finder(options, session, ignore_requires_python=True)
    for candidate in finder.find_all_candidates(package):
        if str(candidate.version) == version:
            link = candidate.link
            break
    else:
        sys.exit(f"ERROR: No source archive of {package} {version} found")
    # Unless asked not to, a server may send a .tar.gz unpacked.
    headers = {"Accept-Encoding": "identity"}
    with session.get(link.url_without_fragment, headers=headers, stream=True) as response:
        response.raise_for_status()
        with (Path(folder) / link.filename).open("wb") as file:
            shutil.copyfileobj(response.raw, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
