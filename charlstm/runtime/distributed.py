"""Processes: how those of one run find each other.

Whoever starts several processes (see `launch/`) says so in their environment; a process finds its
place there, and without any such sign it is alone.
"""

import importlib.util
import logging as python_logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from charlstm.errors import UserError, in_one_line

INITIALIZATION_TIMEOUT = 300  # seconds to wait for the other processes
HEARTBEAT_TIMEOUT = 30  # seconds of silence after which a process is taken for dead
EXIT_BAD_INPUT = 2
SHUTDOWN_TIMEOUT = 60  # seconds to wait for the other processes at the end

# The number of processes and this one's place among them, as launchers name them; the first that is
# set counts.
_EXPLICIT = (
    ("NUM_PROCESSES", "PROCESS_ID"),
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),  # Kubeflow
)

# Other variables by which launchers tell a process that it is one of several: a number above 1, a
# list of several names, and what nobody sets for a process that is alone.
_OTHER_COUNTS = (
    "WORLD_SIZE",  # torchrun
    "PMI_SIZE",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "SKYPILOT_NUM_NODES",
)
_OTHER_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
_OTHER_PLACES = ("JAX_COORDINATOR_ADDRESS", "COORDINATOR_ADDRESS", "PROCESS_ID", "JAX_PROCESS_ID")


def initialize(
    *,
    initialization_timeout: int = INITIALIZATION_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins this process to the others that its environment names; before the first array.

    In this order: what is initialised already (by Ray, say) is left as it is; `NUM_PROCESSES` with
    `PROCESS_ID` and `JAX_COORDINATOR_ADDRESS` states the place, and so does Kubeflow's
    `JAX_NUM_PROCESSES` with `JAX_PROCESS_ID`; SLURM, Open MPI and Cloud TPU are detected by JAX;
    else this process is alone, and opens no port. An environment that speaks of several processes
    in another way is refused.

    Args:
      initialization_timeout: seconds to wait for the others.
      heartbeat_timeout: seconds of silence after which a process is taken for dead.
      environment: where the signs are.

    Raises:
      UserError: the environment is wrong, the others did not come in time, or another number of
        processes came than was asked for.
    """
    expected = _expected_processes(environment)
    if not jax.distributed.is_initialized():
        arguments = _place(environment)
        if arguments is None:
            return
        # Signals are ours: JAX's own service would take SIGTERM, and only once a second.
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        python_logging.getLogger("jax._src.distributed").setLevel(python_logging.ERROR)
        # JAX would abort the process when the time is up, and say so in C++.
        timer = threading.Timer(
            initialization_timeout, _give_up, (environment, initialization_timeout)
        )
        timer.daemon = True
        timer.start()
        try:
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=initialization_timeout + 60,
                heartbeat_timeout_seconds=heartbeat_timeout,
                shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = in_one_line(error, 200)
            raise UserError(
                f"the processes could not join ({reason}): check what started them"
            ) from error
        finally:
            timer.cancel()
    if expected is not None and jax.process_count() != expected:
        raise UserError(
            f"{expected} processes were asked for and JAX knows of {jax.process_count()}: start "
            "each of them with the same NUM_PROCESSES and JAX_COORDINATOR_ADDRESS, or let srun or "
            "mpirun start them all"
        )


def _expected_processes(environment: Mapping[str, str]) -> int | None:
    """Returns how many processes the environment asks for; None if it does not say."""
    for count, _ in _EXPLICIT:
        if count in environment:
            return _number(count, environment, 1)
    if _in_slurm(environment):
        return _number("SLURM_NTASKS", environment, 1)
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return _number("OMPI_COMM_WORLD_SIZE", environment, 1)
    return None


def _place(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for a single process."""
    for count, process in _EXPLICIT:
        if count in environment:
            return _explicit_place(count, process, environment)
    if _in_slurm(environment):
        return None if environment["SLURM_NTASKS"] == "1" else {}
    if "OMPI_COMM_WORLD_SIZE" in environment:
        if environment["OMPI_COMM_WORLD_SIZE"] == "1":
            return None
        if "OMPI_MCA_orte_hnp_uri" in environment:  # up to Open MPI 4
            return {}
        if importlib.util.find_spec("mpi4py") is None:
            raise UserError("Open MPI 5 needs mpi4py to find its processes: pip install mpi4py")
        return {"cluster_detection_method": "mpi4py"}
    if _on_cloud_tpu(environment):
        return {}
    _require_alone(environment)
    return None


def _explicit_place(
    count_name: str, process_name: str, environment: Mapping[str, str]
) -> dict[str, Any] | None:
    """Returns `_place` as two variables and the coordinator's address state it."""
    count = _number(count_name, environment, 1)
    if count == 1:
        return None
    process = _number(process_name, environment, 0)
    if process >= count:
        raise UserError(f"{process_name}={process} must be below {count_name}={count}")
    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(
            f"{count_name}={count} needs JAX_COORDINATOR_ADDRESS=HOST:PORT, the same for all, "
            f"HOST being that of process 0; it is {address!r}"
        )
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": process,
        "cluster_detection_method": "deactivate",  # or SLURM would still choose the devices
    }


def _require_alone(environment: Mapping[str, str]) -> None:
    """Raises `UserError` if the environment says that this process is one of several.

    It would train alone, and so would the others, all of them into one run folder.
    """
    found = [name for name in _OTHER_COUNTS if _is_several(environment.get(name, ""))]
    found += [name for name in _OTHER_LISTS if "," in environment.get(name, "")]
    found += [name for name in _OTHER_PLACES if environment.get(name)]
    if found:
        said = ", ".join(f"{name}={environment[name]}" for name in found)
        raise UserError(
            f"the environment says that this process is one of several ({said}), and not in a way "
            "that charlstm reads: set NUM_PROCESSES, PROCESS_ID and "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT for each of them, or NUM_PROCESSES=1 to train alone"
        )


def _is_several(text: str) -> bool:
    return text.isdecimal() and int(text) > 1


def _in_slurm(environment: Mapping[str, str]) -> bool:
    """Returns True if srun started this process, by the variables that JAX reads."""
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    return all(f"SLURM_{name}" in environment for name in names)


def _on_cloud_tpu(environment: Mapping[str, str]) -> bool:
    if environment.get("JAX_PLATFORMS", "tpu").partition(",")[0] != "tpu":
        return False
    names = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "CLOUD_TPU_TASK_ID")
    has_chips = Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    has_library = importlib.util.find_spec("libtpu") is not None
    return has_library and (has_chips or any(name in environment for name in names))


def _number(name: str, environment: Mapping[str, str], least: int) -> int:
    text = environment.get(name, "")
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"environment variable {name}={text!r} must be a number, {least} or more")
    return int(text)


def _give_up(environment: Mapping[str, str], timeout: int) -> None:
    address = environment.get("JAX_COORDINATOR_ADDRESS", "process 0")
    sys.stderr.write(
        f"charlstm: the {_expected_processes(environment) or ''} processes did not find each other "
        f"at {address} within {timeout} s: start all of them at about the same time, check that "
        "each reaches that host and port, or wait longer with --initialization_timeout=SECONDS\n"
    )
    sys.stderr.flush()
    os._exit(EXIT_BAD_INPUT)


def num_processes_asked_for(environment: Mapping[str, str] = os.environ) -> int:
    """Returns how many processes the environment asks for; 1 if it does not say."""
    return _expected_processes(environment) or 1
