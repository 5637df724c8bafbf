"""Serves good and bad clients for minutes, and looks whether the server is as it was before.

  python -m benchmarks.serving.soak --minutes=10
  python -m benchmarks.serving.soak --model=runs/mine --seed=3

It asks that every answer has a status of 2xx or 4xx, that clients that behave well get the same
texts all the time, that the server's memory does not grow over the second half, and that in the end
all its places, connections and threads are free again. The exit code is 1 if anything failed.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import common
from benchmarks.competitors import versions_of
from benchmarks.reporting import Column
from benchmarks.serving.process import Server, running
from benchmarks.serving.soak_clients import KINDS, MEANINGS, Clients, NotAsPromisedError
from benchmarks.serving.watch import MOST_GROWTH, SECONDS_FOR_A_VERDICT, Watch
from benchmarks.serving.wire import Address

_MINUTES = flags.DEFINE_float("minutes", 10.0, "How long the clients come.", 0.05)
_MODEL = flags.DEFINE_string("model", "shakespeare", "Run, checkpoint or file to serve.")
_READERS = flags.DEFINE_integer("readers", 8, "Clients at a time that behave well.", 1)
_OTHERS = flags.DEFINE_integer("others", 2, "Clients at a time of each other kind.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Of all that clients do.")

_KEY = "soak"
_FREE_SECONDS = 60.0  # until all places and connections are free again

_CLIENTS = (
    Column("kind", "clients"),
    Column("meaning", "what they do"),
    Column("connections", "connections"),
    Column("answers", "answers"),
    Column("failed", "failed"),
)
_CHECKS = (
    Column("what", "the server"),
    Column("found", "found"),
    Column("wanted", "wanted"),
    Column("ok", "as promised", lambda ok: "yes" if ok else "NO"),
)


def main(argv: Sequence[str]) -> None:
    """Serves, and reports."""
    del argv
    report = common.new_report("serving_soak", "A server under good and bad clients")
    report.versions |= versions_of("jax", "jaxlib", "numpy", "starlette", "uvicorn")
    with tempfile.TemporaryDirectory() as folder:
        keys, log = Path(folder) / "keys", Path(folder) / "log"
        keys.write_text(f"{_KEY}\n")
        # A small cache is full soon: then memory should not grow any more.
        options = f"--api_key_file={keys}", "--prompt_cache_mb=8", "--max_waiting=256"
        with running(_MODEL.value, *options, log=log) as server:
            clients = Clients(Address.of(server.address, _KEY), _SEED.value)
            checks = asyncio.run(_soak(server, clients))
            code = server.end()
        checks.append(_check("exit code at SIGTERM", code, 0, code == 0))
        tracebacks = log.read_text().count("Traceback")
        checks.append(_check("tracebacks in its log", tracebacks, 0, not tracebacks))
        if tracebacks:
            common.say(log.read_text())
    rows = report.table(f"{_MINUTES.value:g} minutes of clients", _CLIENTS)
    for kind, tally in clients.tallies.items():
        answers = {str(status): count for status, count in sorted(tally.statuses.items()) if count}
        told = ", ".join(f"{count}× {status}" for status, count in answers.items())
        row = {"kind": kind, "meaning": MEANINGS[kind], "connections": tally.connections}
        rows.append(row | {"answers": told, "by_status": answers, "failed": len(tally.failed)})
        for reason in dict.fromkeys(tally.failed):
            common.say(f"FAILED {kind}: {tally.failed.count(reason)}× {reason}")
    report.table("In the end", _CHECKS).extend(checks)
    report.write()
    failed = any(tally.failed for tally in clients.tallies.values())
    sys.exit(failed or not all(check["ok"] for check in checks))


async def _soak(server: Server, clients: Clients) -> list[dict[str, Any]]:
    """Lets clients come; returns what is found of the server afterwards."""
    watch, stop = Watch(server.pid), asyncio.Event()
    text = await clients.seeded_text()
    files, threads = watch.files(), watch.threads()
    counts = {kind: _READERS.value if kind == "readers" else _OTHERS.value for kind in KINDS}
    tasks = [
        asyncio.create_task(clients.run(kind, number, stop))
        for kind, count in counts.items()
        for number in range(count)
    ]
    seconds, same, num_texts = 60 * _MINUTES.value, True, 1
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        watch.look()
        if now > num_texts * min(10.0, seconds / 2):
            num_texts += 1
            same = await _is_same(clients, text) and same
        await asyncio.sleep(min(1.0, seconds / 20))
    stop.set()
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    busy, left = await _until_free(server, watch, files)
    same = await _is_same(clients, text) and same
    mean, slope, length = watch.second_half()
    growth = slope * length / mean
    is_flat = growth <= MOST_GROWTH or length < SECONDS_FOR_A_VERDICT
    found = f"{growth:+.1%} of {mean / 2**20:.0f} MiB, {60 * slope / 2**20:+.2f} MiB a minute"
    return [
        _check("seeded text, asked for all the time", "the same" if same else "another", "the same")
        | {"times": num_texts + 1},
        _check("memory over the second half", found, f"at most {MOST_GROWTH:+.0%}", is_flat)
        | {"samples": watch.memory},
        _check("texts that are made or wait", busy, 0),
        _check("open files and connections", left, f"at most {files}", left <= files),
        # One that compiles may have ended since.
        _check("threads", watch.threads(), f"about {threads}", watch.threads() <= threads + 4),
    ]


def _check(what: str, found: Any, wanted: Any, ok: bool | None = None) -> dict[str, Any]:
    return {
        "what": what,
        "found": found,
        "wanted": wanted,
        "ok": found == wanted if ok is None else ok,
    }


async def _is_same(clients: Clients, text: str) -> bool:
    try:
        return await asyncio.wait_for(clients.seeded_text(), 120) == text
    except (NotAsPromisedError, OSError, EOFError, TimeoutError) as error:
        common.say(f"FAILED seeded text: {type(error).__name__}: {error}")
        return False


async def _until_free(server: Server, watch: Watch, files: int) -> tuple[int, int]:
    """Waits until nothing is made and no connection is open; returns how much still is."""
    end = time.monotonic() + _FREE_SECONDS
    while True:
        found = await asyncio.to_thread(server.metrics)
        busy = int(found["charlstm_active"] + found["charlstm_waiting"])
        left = watch.files()
        if (busy == 0 and left <= files) or time.monotonic() > end:
            return busy, left
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    app.run(main)
