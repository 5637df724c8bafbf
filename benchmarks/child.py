"""Serves competitors in a process of its own: waits for a request, runs it, reports its time.

Requests and replies are JSON objects, one per line, on standard input and output. Whatever a
library prints goes to standard error. Between runs the process sleeps in a read. The next reply
says how much CPU time it used meanwhile: spinning threads would disturb the others.

A request with `module` and `spec` prepares a competitor, one with `count` and `warm_up` runs it,
and `forget` frees all. Competitors with a `name` share the process: one that fails does not end it.

A run may begin with some work that is not timed. A process that has slept finds its caches cold.
On a virtual machine, memory that it freed may also have gone back to the host while it slept:
allocating 410 MB again took 0.5 s there, and 0.04 s without the sleep.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
from typing import Any

from benchmarks.competitors import Competitor

OURS = ("benchmarks", "charlstm")


def main() -> None:
    """Serves one parent process until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    competitors: dict[str, Competitor] = {}
    idle = (time.perf_counter(), time.process_time())
    for line in sys.stdin:
        woken = (time.perf_counter(), time.process_time())
        order = json.loads(line)
        name = order.get("name", "")
        answer: dict[str, Any] = {}
        try:
            if "module" in order:
                competitors[name], answer = _prepare(order)
            elif "forget" in order:
                competitors.clear()
            else:
                answer = _run(competitors[name], order)
                answer["idle_seconds"] = woken[0] - idle[0]
                answer["idle_cpu_seconds"] = woken[1] - idle[1]
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in OURS:
                raise
            answer = {"missing": missing}
        except Exception as error:  # the table shows whatever a competitor raises
            traceback.print_exc()
            first_line = (str(error).splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first_line}"[:200]}
        replies.write(json.dumps(answer) + "\n")
        if not name and ("missing" in answer or "error" in answer):
            return
        idle = (time.perf_counter(), time.process_time())


def _prepare(order: dict[str, Any]) -> tuple[Competitor, dict[str, Any]]:
    begin = time.perf_counter()
    module = importlib.import_module(order["module"], package="benchmarks.competitors")
    competitor = module.prepare(order["spec"])
    return competitor, {"info": competitor.info | {"prepare_seconds": time.perf_counter() - begin}}


def _run(competitor: Competitor, order: dict[str, Any]) -> dict[str, Any]:
    if order["warm_up"]:
        competitor.run(order["warm_up"])
    begin, cpu_begin = time.perf_counter(), time.process_time()
    values = competitor.run(order["count"])
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "values": values or {},
    }


if __name__ == "__main__":
    main()
