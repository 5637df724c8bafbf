"""Trains with several processes on this machine and splits its devices among them.

  python launch/local.py --num_processes=2 --devices_per_process=1 -- --config=quickstart

What follows `--` goes to `charlstm train`. SIGTERM, SIGUSR1 and SIGINT are passed on, and all
processes save together. The first process that fails ends the rest. The exit code is 0 if all
finished, 75 if all saved and should be run again, and otherwise that of the process that failed
first.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

EXIT_SAVED = 75
EXIT_INTERRUPTED = 130
FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str]) -> int:
    """Starts the processes and watches them; returns the exit code."""
    options, arguments = _parse(argv)
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    signals: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda received, _: signals.append(received))
    children = [
        _start(options, arguments, process, port) for process in range(options.num_processes)
    ]
    readers = [
        threading.Thread(target=_label, args=(process, child.stdout), daemon=True)
        for process, child in enumerate(children)
    ]
    for reader in readers:
        reader.start()
    try:
        code = _watch(children, signals, options.grace_seconds)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for reader in readers:
            reader.join(5)
    return code


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    split = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="local.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_processes", type=_positive, default=2)
    parser.add_argument(
        "--devices_per_process", type=_positive, default=1, help="GPUs, or parts of the CPU"
    )
    parser.add_argument(
        "--grace_seconds",
        type=float,
        default=5.0,
        help="after one has failed, the time for the rest to say what they saw (default 5)",
    )
    return parser.parse_args(list(argv)[:split]), list(argv)[split + 1 :]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _start(
    options: argparse.Namespace, arguments: list[str], process: int, port: int
) -> subprocess.Popen[bytes]:
    first = process * options.devices_per_process
    devices = range(first, first + options.devices_per_process)
    environment = os.environ | {
        "NUM_PROCESSES": str(options.num_processes),
        "PROCESS_ID": str(process),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",  # only this machine connects
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, devices)),  # only GPUs heed it
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "charlstm", "train"]
    command += [f"--num_cpu_devices={options.devices_per_process}", *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches them once, through us
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )


def _end_with_parent() -> None:
    """Makes the kernel send SIGTERM to this process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _label(process: int, output: IO[bytes] | None) -> None:
    """Passes lines on, each with the number of the process that wrote it in front."""
    assert output is not None
    for line in output:
        sys.stdout.buffer.write(b"[%d] " % process + line.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()


def _failure(codes: list[int | None]) -> tuple[int, int] | None:
    """Returns the process that failed and its exit code, or None.

    A process killed by a signal comes first, because others may have failed as a consequence.
    """
    fine = (None, 0, EXIT_SAVED, EXIT_INTERRUPTED)
    failed = [(process, code) for process, code in enumerate(codes) if code not in fine]
    return min(failed, key=lambda failure: failure[1], default=None)


def _watch(
    children: list[subprocess.Popen[bytes]], signals: list[int], grace_seconds: float
) -> int:
    """Passes signals on until all have ended, or one has failed and the grace period is over."""
    failed: tuple[int, int] | None = None  # (process, code)
    until = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < until:
        while signals:
            number = signals.pop(0)
            for child in children:
                if child.poll() is None:
                    child.send_signal(number)
        if failed is None:
            failed = _failure([child.poll() for child in children])
            until = float("inf") if failed is None else time.monotonic() + grace_seconds
        time.sleep(0.02)
    codes = [child.poll() for child in children]
    failed = failed or _failure(codes)
    if failed is None:
        ended = {code for code in codes if code is not None}
        if len(ended) == 1:
            return ended.pop()
        _say(f"the processes ended in different ways: exit codes {codes}")
        return next(code for code in (EXIT_INTERRUPTED, EXIT_SAVED, 1) if code in ended | {1})
    process, code = failed
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with code {code}"
    left = [number for number, other in enumerate(codes) if other is None]
    rest = f"; ending process {', '.join(map(str, left))}" if left else ""
    _say(f"process {process} {how}{rest}; the same command goes on from the last checkpoint")
    return code if code > 0 else 128 - code


def _say(text: str) -> None:
    print(f"local.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
