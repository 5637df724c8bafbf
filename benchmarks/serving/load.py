"""Measures a server under the load of `hey`, in turn with `charlstm sample` on the same machine.

  python -m benchmarks.serving.load
  python -m benchmarks.serving.load --model=2x128 --rounds=3

It takes `hey` (apt-get install hey). A round measures, for each number of clients, first
`charlstm sample` with as many texts side by side, then the server with as many clients that ask for
a text, wait for it, and ask again. The rate of `charlstm sample` is that of the difference between
a long and a short run of the command, so that its start does not count. The server's is what it
made under the load, by its own metrics. In the end as many clients read streams, and the time from
a request to the first byte of its text is taken.
"""

import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import common, reporting, sample_command
from benchmarks.competitors import versions_of
from benchmarks.reporting import Column
from benchmarks.serving.process import Server, running

_MODEL = flags.DEFINE_string("model", "3x512", "Layers x hidden size.")
_CLIENTS = flags.DEFINE_list("clients", ["1", "64"], "Clients at the same time.")
_SECONDS = flags.DEFINE_float("seconds", 8.0, "Of load in a turn.", 1.0)
_BYTES = flags.DEFINE_integer("bytes", 256, "Of each text.", 1)
_SEED = flags.DEFINE_boolean("seeded", False, "Ask for texts with a seed.")

_RATES = (
    Column("clients", "clients"),
    Column("server", "server, bytes/s", reporting.short),
    Column("server_range", "lowest – highest", reporting.span),
    Column("sample", "charlstm sample, bytes/s", reporting.short),
    Column("sample_range", "lowest – highest", reporting.span),
    Column("ratio", "server is", reporting.ratio),
    Column("requests", "requests"),
)
_FIRST_BYTE = (
    Column("clients", "clients that read streams"),
    Column("requests", "requests"),
    Column("median", "first byte, median ms", reporting.number(0)),
    Column("p99", "99th percentile ms", reporting.number(0)),
    Column("rate", "bytes/s of all", reporting.short),
)


def main(argv: Sequence[str]) -> None:
    """Measures every number of clients."""
    del argv
    if shutil.which("hey") is None:
        sys.exit("this benchmark takes hey: apt-get install hey")
    report = common.new_report("serving", "Serving under load")
    report.versions |= versions_of("jax", "jaxlib", "numpy", "starlette", "uvicorn")
    rates = report.table(f"{_MODEL.value}, texts of {_BYTES.value} bytes", _RATES)
    firsts = report.table("Time to the first byte", _FIRST_BYTE)
    with tempfile.TemporaryDirectory() as folder:
        run = _trained(Path(folder))
        with running(run, log=Path(folder) / "serve.log") as server:
            for clients in map(int, _CLIENTS.value):
                common.say(f"{clients} clients")
                _load(server, clients, 2.0)  # what is compiled late is compiled now
                rates.append(_compared(server, run, clients))
                firsts.append(_first_bytes(server, clients))
            code = server.end()
    report.notes.append(
        f"The server ended with {code}. Rates are medians of {common.ROUNDS.value} turns; the "
        "ratio is the median of the ratios of turns that followed each other. The clients run on "
        "the same cores."
    )
    report.write()


def _trained(folder: Path) -> Path:
    """Trains a model of the wanted shape for a few updates: its speed is that of a trained one."""
    layers, _, size = _MODEL.value.partition("x")
    run = folder / "model"
    fields = {"model.num_layers": layers, "model.hidden_size": size}
    fields |= {"training.num_updates": "20", "optimizer.warmup_updates": "1"}
    subprocess.run(
        [
            *(sys.executable, "-m", "charlstm", "train", "--config=quickstart"),
            f"--workdir={run}",
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ],
        check=True,
        capture_output=True,
    )
    return run


def _compared(server: Server, run: Path, clients: int) -> dict[str, Any]:
    num_bytes = sample_command.bytes_in(_SECONDS.value, run, clients)
    ours, theirs, requests = [], [], 0
    for _ in range(common.ROUNDS.value):
        theirs.append(sample_command.bytes_per_second(run, clients, num_bytes))
        rate, answered = _load(server, clients, _SECONDS.value)
        ours.append(rate)
        requests += answered
    return {
        "clients": clients,
        "server": statistics.median(ours),
        "server_range": (min(ours), max(ours)),
        "sample": statistics.median(theirs),
        "sample_range": (min(theirs), max(theirs)),
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "requests": requests,
        "turns": [ours, theirs],
    }


def _asked(stream: bool) -> dict[str, Any]:
    seed = {"seed": 0} if _SEED.value else {}
    return {"prompt": sample_command.PROMPT, "max_tokens": _BYTES.value, "stream": stream} | seed


def _load(server: Server, clients: int, seconds: float) -> tuple[float, int]:
    """Returns the bytes/s that the server made under the load of clients, and their requests.

    Raises:
      RuntimeError: a request was not answered with 200.
    """
    begin, before = time.perf_counter(), server.metrics()
    done = subprocess.run(
        [
            *("hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-o", "csv"),
            *("-t", "120", "-T", "application/json", "-d", json.dumps(_asked(False))),
            f"{server.address}v1/completions",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    after, end = server.metrics(), time.perf_counter()
    header, *rows = [line.split(",") for line in done.stdout.splitlines()]
    statuses = {row[header.index("status-code")] for row in rows}
    if statuses != {"200"}:
        raise RuntimeError(f"hey was answered with {sorted(statuses)}")
    made = "charlstm_bytes_made_total"
    return (after[made] - before[made]) / (end - begin), len(rows)


def _first_bytes(server: Server, clients: int) -> dict[str, Any]:
    begin, before = time.perf_counter(), server.metrics()
    waited = asyncio.run(_read_streams(server.address, clients, 2 * _SECONDS.value))
    after, end = server.metrics(), time.perf_counter()
    made = "charlstm_bytes_made_total"
    milliseconds = 1e3 * np.array(waited)
    return {
        "clients": clients,
        "requests": len(waited),
        "median": float(np.median(milliseconds)),
        "p99": float(np.percentile(milliseconds, 99)),
        "rate": (after[made] - before[made]) / (end - begin),
    }


async def _read_streams(address: str, clients: int, seconds: float) -> list[float]:
    """Returns for each request how long its first byte took."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    until, waited = time.perf_counter() + seconds, []
    draws = random.Random(0)

    async def client() -> None:
        await asyncio.sleep(draws.random())
        while time.perf_counter() < until:
            body = json.dumps(_asked(True)).encode()
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            begin = time.perf_counter()
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + body)
            await reader.readuntil(b"data: ")
            waited.append(time.perf_counter() - begin)
            while await reader.read(2**16):
                pass
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return waited


if __name__ == "__main__":
    app.run(main)
