"""Work of parts that need no device: named as the module of a part, in a process of its own."""

import sys


def measure(work):
    print("a library's chatter", file=sys.stderr)
    for name, variant in work.turns():
        if variant["kind"] == "breaking":
            raise RuntimeError("the last line of it")
        with work.result(name) as figures:
            if variant["kind"] == "failing":
                raise ValueError("bad luck\nand more of it")
            figures["seconds"] = 1.0
