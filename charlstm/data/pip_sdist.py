"""Downloads one source archive of a package with pip's own code, without building it.

This is a script, run by its path with any Python that has pip. It imports only pip and the standard
library:

  python pip_sdist.py PACKAGE VERSION FOLDER

`pip download` is not used because, for a source archive, it always asks the package's build backend
for metadata: it runs the package's code and installs its build requirements, and no option turns
that off. Another HTTP client is not used because the user's pip knows the index, mirrors,
find-links, proxies, certificates and passwords; `PipSession` and `PackageFinder` use them all. They
are not a public interface, but the calls made here are the same in pip 22 to 26. If one of them
breaks, the caller reports a failed fetch. The script does not verify the file: the caller compares
it with the pinned sha256 before reading it.
"""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from pip._internal.commands import create_command


def main(package: str, version: str, folder: str) -> None:
    """Downloads the source archive of `package` at `version` into `folder`."""
    logging.basicConfig(level=logging.DEBUG)  # pip logs here why an index failed
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
    # Without this header a server may send a .tar.gz unpacked.
    headers = {"Accept-Encoding": "identity"}
    with session.get(link.url_without_fragment, headers=headers, stream=True) as response:
        response.raise_for_status()
        with (Path(folder) / link.filename).open("wb") as file:
            shutil.copyfileobj(response.raw, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
