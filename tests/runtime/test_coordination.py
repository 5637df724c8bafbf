"""Several processes end together."""

import subprocess
import sys

from processes import free_port

FAILS_LATE = """
import sys, time
import jax
from charlstm.runtime import coordination

address, process, late = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
jax.distributed.initialize(address, 2, process, cluster_detection_method="deactivate")
time.sleep(late)
print(f"process {process} says why", file=sys.stderr)
coordination.leave(2)
"""


def test_processes_that_fail_for_the_same_reason_all_say_so_however_slow_they_are(environment):
    """The death of process 0 ends the others at once, so it waits for those behind it."""
    address = f"127.0.0.1:{free_port()}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FAILS_LATE, address, str(process), str(late)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, late in enumerate((0, 5))
    ]
    said = [process.communicate(timeout=90)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    for process, text in enumerate(said):
        assert f"process {process} says why" in text
