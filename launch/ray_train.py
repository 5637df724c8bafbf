r"""Trains on a Ray cluster: Ray Train starts one process per worker, and restarts them.

  pip install 'ray[train]'
  python launch/ray_train.py --num_workers=4 --gpus_per_worker=8 -- \
    --config=NAME --workdir=/shared/runs/NAME

What follows `--` goes to `charlstm train`. Paths must be absolute, because workers run in folders
of Ray's own. The environment and the run folder must be on a disk that all workers share. The exit
code is 0 if the run is finished, 75 if it was saved and should be run again, and 1 if it failed
more often than --max_failures.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import ray.train
import ray.util
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

EXIT_SAVED = 75
_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str]) -> int:
    """Runs all workers until the run is finished; returns the exit code."""
    options, arguments = _parse(argv)
    resources = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    trainer = DataParallelTrainer(
        train_on_worker,
        train_loop_config={"arguments": arguments},
        scaling_config=ray.train.ScalingConfig(
            num_workers=options.num_workers,
            use_gpu=options.gpus_per_worker > 0,
            resources_per_worker={name: number for name, number in resources.items() if number},
        ),
        run_config=ray.train.RunConfig(
            failure_config=ray.train.FailureConfig(max_failures=options.max_failures)
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        print(f"ray_train.py: {error}", file=sys.stderr)
        return 1
    return int(result.return_value)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    split = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="ray_train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--gpus_per_worker", type=int, default=0, help="0: train on the CPU")
    parser.add_argument("--cpus_per_worker", type=int, default=1)
    parser.add_argument("--max_failures", type=int, default=3)
    return parser.parse_args(list(argv)[:split]), list(argv)[split + 1 :]


def train_on_worker(settings: dict[str, Any]) -> int:
    """Runs `charlstm train` in a process of its own and returns its exit code.

    The worker process itself will not do: its threads and signals are Ray's.

    Raises:
      RuntimeError: charlstm failed. Ray then restarts all workers.
    """
    context = ray.train.get_context()
    rank = context.get_world_rank()
    address = f"{ray.util.get_node_ip_address()}:{_free_port()}" if rank == 0 else None
    places = {
        "NUM_PROCESSES": str(context.get_world_size()),
        "PROCESS_ID": str(rank),
        "JAX_COORDINATOR_ADDRESS": broadcast_from_rank_zero(address),
    }
    code = subprocess.run(
        [sys.executable, "-m", "charlstm", "train", *settings["arguments"]],
        env=os.environ | places,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        check=False,
    ).returncode
    if code not in (0, EXIT_SAVED):
        raise RuntimeError(f"charlstm ended with exit code {code} on rank {rank}")
    return code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Makes the kernel end this process when its worker is gone, however it ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
