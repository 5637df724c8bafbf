"""Serves one competitor in a process of its own: waits for a request, runs it, reports its time.

Requests and replies are JSON objects, one per line, on standard input and output. Whatever a
library prints goes to standard error. Between runs the process sleeps in a read. The next reply
says how much CPU time it used meanwhile: spinning threads would disturb the others.

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

OURS = ("benchmarks", "charlstm")


def main() -> None:
    """Serves one parent process until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")

    request = json.loads(sys.stdin.readline())
    try:
        module = importlib.import_module(request["module"], package="benchmarks.competitors")
        begin = time.perf_counter()
        competitor = module.prepare(request["spec"])
        reply({"info": competitor.info | {"prepare_seconds": time.perf_counter() - begin}})
        idle = (time.perf_counter(), time.process_time())
        for line in sys.stdin:
            woken = (time.perf_counter(), time.process_time())
            order = json.loads(line)
            if order["warm_up"]:
                competitor.run(order["warm_up"])
            begin, cpu_begin = time.perf_counter(), time.process_time()
            values = competitor.run(order["count"])
            end, cpu_end = time.perf_counter(), time.process_time()
            reply(
                {
                    "seconds": end - begin,
                    "cpu_seconds": cpu_end - cpu_begin,
                    "idle_seconds": woken[0] - idle[0],
                    "idle_cpu_seconds": woken[1] - idle[1],
                    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                    "values": values or {},
                }
            )
            idle = (time.perf_counter(), time.process_time())
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in OURS:
            raise
        reply({"missing": name})
    except Exception as error:  # the table shows whatever a competitor raises
        traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        reply({"error": f"{type(error).__name__}: {first_line}"[:200]})


if __name__ == "__main__":
    main()
