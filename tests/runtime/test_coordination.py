"""Several processes end together."""

import sys

from processes import free_port, run_together

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
    command = [sys.executable, "-c", FAILS_LATE, address]
    both = run_together([[*command, 0, 0], [*command, 1, 5]], [environment] * 2, 90)
    assert [code for code, _, _ in both] == [2, 2], both
    for process, (_, _, errors) in enumerate(both):
        assert f"process {process} says why" in errors
