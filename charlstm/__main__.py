"""The command line: `charlstm COMMAND …`, the same as `python -m charlstm COMMAND …`.

Here stands only what must come before the rest is loaded, which takes a second.
"""

import sys

from charlstm.runtime import huge_pages, preemption, standard_streams


@standard_streams.usable()
def run() -> None:
    """Runs the command that the process's arguments name, and exits with its code."""
    try:
        if sys.argv[1:2] in (["train"], ["serve"]):
            preemption.hold_back()
        huge_pages.restart()
        from charlstm import command_line

        code = command_line.run(sys.argv)
    except KeyboardInterrupt:  # while all that was being loaded
        print("charlstm: interrupted", file=sys.stderr)
        code = preemption.EXIT_INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    run()
