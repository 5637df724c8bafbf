"""Contestants that need nothing: started by name in processes of their own."""

import time

from benchmarks.contestants import Contestant


def prepare(spec):
    kind = spec["kind"]
    if kind == "absent":
        import a_library_that_nobody_has  # noqa: F401
    if kind == "failing":
        raise ValueError("bad luck\nand more of it")
    if kind == "dying":
        raise SystemExit(3)
    turns = 0

    def turn(count):
        nonlocal turns
        turns += 1
        if kind == "giving up" and turns > 4:
            raise RuntimeError("tired")
        print("noise that is no reply")
        time.sleep(0.001 * count)
        return {"at": time.time(), "count": count}

    return Contestant(turn, {"versions": {"none": "1"}})
