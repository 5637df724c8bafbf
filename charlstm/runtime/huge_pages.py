"""Memory in pages of 2 MB, where the system grants them on request.

What an update needs beside the state, 410 MB at 3 × 1024, is taken from the system and given back
with every dispatch. In pages of 4 kB that is 100,000 page faults; in pages of 2 MB an update was 5
to 8 % faster on two CPU cores. From version 2.35 on, glibc asks for them if a variable says so. It
reads the variable when a process starts, so the command is started once more.
"""

import os
import sys
from pathlib import Path

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
FIRST_GLIBC = (2, 35)
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment() -> dict[str, str]:
    """Returns the variables that give a process huge pages; none where that is of no use.

    A user who sets the tunable, to 0 for instance, has the last word.
    """
    given = os.environ.get(VARIABLE, "")
    if TUNABLE in given or not _glibc_asks() or not _system_waits_to_be_asked():
        return {}
    return {VARIABLE: ":".join(filter(None, [given, f"{TUNABLE}=1"]))}


def restart() -> None:
    """Starts the command once more, in the same process, if huge pages would help it."""
    wanted = environment()
    if wanted and sys.executable:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wanted)


def _glibc_asks() -> bool:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, version.split("."))) >= FIRST_GLIBC
    except (AttributeError, ValueError):  # another system, or another C library
        return False


def _system_waits_to_be_asked() -> bool:
    try:
        return "[madvise]" in _MODE.read_text()
    except OSError:
        return False
