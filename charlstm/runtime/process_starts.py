"""Tells when a process has started, which together with its id names it for good."""

from pathlib import Path


def start_ticks(process: int) -> str:
    """Returns when a process started, in clock ticks since the machine's start, as a number.

    It is empty if there is no such process, if it has ended and is not yet collected, or if the
    system does not say.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""
