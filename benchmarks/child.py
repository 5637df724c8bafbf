"""The process of one contestant: waits for a turn, takes it, and says how long it took.

Requests and replies are JSON objects, one a line, on standard input and output. Whatever a
library prints goes to standard error. Between turns the process sleeps in a read; how much of the
processor it used meanwhile (spinning threads would disturb the others) is part of the next reply.

A turn may begin with some work that is not timed. A process that slept finds its caches cold, and
on a virtual machine memory that it gave back while it slept may have gone back to the host: taking
410 MB again took 0.5 s there, and 0.04 s with no sleep between.
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
    """Serves one parent until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")

    request = json.loads(sys.stdin.readline())
    try:
        module = importlib.import_module(request["module"], package="benchmarks.contestants")
        begin = time.perf_counter()
        contestant = module.prepare(request["spec"])
        reply({"info": contestant.info | {"prepare_seconds": time.perf_counter() - begin}})
        idle = (time.perf_counter(), time.process_time())
        for line in sys.stdin:
            woken = (time.perf_counter(), time.process_time())
            turn = json.loads(line)
            if turn["warm_up"]:
                contestant.turn(turn["warm_up"])
            begin, cpu_begin = time.perf_counter(), time.process_time()
            values = contestant.turn(turn["count"])
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
    except Exception as error:  # whatever a peer raises is what the table says of it
        traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        reply({"error": f"{type(error).__name__}: {first_line}"[:200]})


if __name__ == "__main__":
    main()
