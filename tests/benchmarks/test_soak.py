"""The soak test of the server: it passes by a good server, and notices a bad one."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest

from benchmarks.serving.soak_clients import KINDS, Clients, NotAsPromisedError, _asked
from benchmarks.serving.watch import MOST_GROWTH, Watch
from benchmarks.serving.wire import Address

ROOT = Path(__file__).parents[2]


def test_a_few_seconds_of_all_kinds_of_clients(environment, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.serving.soak", "--minutes=0.1"),
            *(f"--out={tmp_path}", "--seed=3", "--others=1"),
        ],
        cwd=ROOT,
        env=environment | processes.CHEAP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((tmp_path / "serving_soak.json").read_text())
    clients, checks = report["tables"].values()
    assert [row["kind"] for row in clients] == list(KINDS)
    assert all(row["failed"] == 0 and row["connections"] > 0 for row in clients)
    assert clients[0]["by_status"]["200"] > 0
    assert len(checks) == 7 and all(row["ok"] for row in checks)
    assert len(checks[1]["samples"]) > 5
    assert report["versions"]["starlette"] and "--seed=3" in report["command"]
    assert (tmp_path / "serving_soak.md").read_text().strip() in done.stdout


@contextlib.asynccontextmanager
async def clients_of(answer):
    """Clients of a server that answers everything in one way."""
    numbers = itertools.count()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(next(numbers)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Clients(Address("127.0.0.1", server.sockets[0].getsockname()[1], "key"), 0)


async def tally_of(answer, kind, seconds=0.3):
    """What a kind of clients finds of such a server."""
    async with clients_of(answer) as clients:
        stop = asyncio.Event()
        running = asyncio.create_task(clients.run(kind, 0, stop))
        await asyncio.sleep(seconds)
        stop.set()
        await running
    return clients.tallies[kind]


def run(make_coroutine, *arguments):
    """Runs a coroutine in a thread of its own: a browser of other tests has a loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(make_coroutine(*arguments))).result()


def answered(status, body):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


@pytest.mark.parametrize(
    ("kind", "answer", "said"),
    [
        ("readers", lambda _: answered(500, b"{}"), "answered with 500"),
        ("readers", lambda _: answered(400, b"{}"), "answered with 400"),
        ("readers", lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "IncompleteRead"),
        ("garbling", lambda _: answered(500, b""), "answered with 500"),
        ("mistaken", lambda _: answered(200, b'{"error": {"message": "x"}}'), "answered with 200"),
    ],
)
def test_what_a_server_must_not_do_is_noticed(kind, answer, said):
    tally = run(tally_of, answer, kind)
    assert tally.failed and any(said in reason for reason in tally.failed)


def test_a_text_that_is_another_one_the_next_time_is_noticed():
    def text(number):
        choices = [{"index": 0, "text": "same" if number < 2 else "another"}]
        return answered(200, json.dumps({"choices": choices}).encode())

    async def read_three_times():
        async with clients_of(text) as clients:
            # One that asks for a single text at once.
            draws = random.Random(seed_of_a_plain_request())
            state = draws.getstate()
            for _ in range(2):
                draws.setstate(state)
                assert await clients.read(draws) == 200
            draws.setstate(state)
            with pytest.raises(NotAsPromisedError, match="another text than before"):
                await clients.read(draws)

    run(read_three_times)


def seed_of_a_plain_request():
    for seed in itertools.count():
        draws = random.Random(seed)
        if "n" not in _asked(draws) and draws.random() >= 0.5:
            return seed


@pytest.mark.parametrize(("growth", "is_flat"), [(0.0, True), (0.04, True), (0.07, False)])
def test_memory_that_grows_over_the_second_half_is_noticed(growth, is_flat):
    watch = Watch(os.getpid())
    for _ in range(3):
        watch.look()
    assert all(size > 10 * 2**20 for _, size in watch.memory)
    # It may grow as it likes in the first half.
    watch.memory = [
        (second, 5e8 * (1 + growth * max(0, second / 60 - 1)) - 1e7 * max(0, 60 - second))
        for second in range(121)
    ]
    mean, slope, seconds = watch.second_half()
    assert seconds == 60 and (slope * seconds / mean <= MOST_GROWTH) == is_flat
