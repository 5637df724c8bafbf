"""Competitors that need nothing: started by name in processes of their own."""

import time

from benchmarks.competitors import Competitor


def prepare(spec):
    kind = spec["kind"]
    if kind == "absent":
        import a_library_that_nobody_has  # noqa: F401
    if kind == "failing":
        raise ValueError("bad luck\nand more of it")
    if kind == "dying":
        raise SystemExit(3)
    runs = 0

    def run(count):
        nonlocal runs
        runs += 1
        if kind == "giving up" and runs > 4:
            raise RuntimeError("tired")
        print("noise that is no reply")
        time.sleep(0.001 * count)
        return {"at": time.time(), "count": count}

    return Competitor(run, {"versions": {"none": "1"}})
