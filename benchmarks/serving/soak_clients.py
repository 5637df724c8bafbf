"""Clients for the soak test: some behave well, and are to notice nothing of the others."""

import asyncio
import collections
import dataclasses
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.serving.wire import Address, answer, events

# Whatever is asked, and however.
ALLOWED = frozenset({200, 400, 401, 404, 405, 408, 413, 429})
# What a client that behaves well may be told.
WELL_BEHAVED = frozenset({200, 429})

_PROSE = (
    "The king is come; deal mildly with his youth, for young hot colts being raged do rage the "
    "more. What news from him that was so lately here? My lord, he has no news but of himself.\n"
)
_SEEDED = {"prompt": "ROMEO:", "max_tokens": 200, "seed": 1, "temperature": 0.8}


class NotAsPromisedError(Exception):
    """The server did what it must not do."""


@dataclasses.dataclass
class Tally:
    """Counts what became of the clients of a kind."""

    connections: int = 0
    statuses: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    failed: list[str] = dataclasses.field(default_factory=list)


class Clients:
    """Clients of one server.

    Args:
      address: of the server.
      seed: of all that they do.

    Attributes:
      tallies: by kind.
    """

    def __init__(self, address: Address, seed: int):
        self.address, self._seed = address, seed
        self.tallies = {kind: Tally() for kind in KINDS}
        self._known: dict[str, list[str]] = {}  # texts by what was asked

    async def run(self, kind: str, number: int, stop: asyncio.Event) -> None:
        """Is one client of a kind after another until an event is set."""
        tally, draws = self.tallies[kind], random.Random(f"{self._seed} {kind} {number}")
        while not stop.is_set():
            tally.connections += 1
            try:
                status = await asyncio.wait_for(KINDS[kind](self, draws), 300)
            except NotAsPromisedError as error:
                tally.failed.append(str(error))
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                # Only of those that behave well it is asked that they be answered.
                if kind == "readers":
                    tally.failed.append(f"{type(error).__name__}: {error}")
            else:
                tally.statuses[status] += status > 0
                allowed = WELL_BEHAVED if kind == "readers" else ALLOWED
                if status and status not in allowed:
                    tally.failed.append(f"answered with {status}")
                await asyncio.sleep(0.5 if status == 429 else draws.random() / 20)

    async def seeded_text(self) -> str:
        """Asks for the text that must be the same all the time."""
        async with self.address.connected() as (reader, writer):
            writer.write(self.address.request(_SEEDED))
            status, body = await answer(reader)
        if status != 200:
            raise NotAsPromisedError(f"the seeded text was answered with {status}")
        return json.loads(body)["choices"][0]["text"]

    async def read(self, draws: random.Random) -> int:
        """Asks for texts and reads them; they are the same whenever they are asked for."""
        asked = _asked(draws)
        stream = draws.random() < 0.5
        async with self.address.connected() as (reader, writer):
            writer.write(self.address.request(asked | {"stream": stream}))
            status, body = await answer(reader)
        if status != 200:
            return status
        texts = [""] * asked.get("n", 1)
        for part in events(body) if stream else [json.loads(body)]:
            if "error" in part:
                raise NotAsPromisedError(f"a stream ended with {part}")
            for choice in part["choices"]:
                texts[choice["index"]] += choice["text"]
        if texts != self._known.setdefault(json.dumps(asked), texts):
            raise NotAsPromisedError(f"another text than before for {asked}")
        return status

    async def vanish(self, draws: random.Random) -> int:
        """Goes away at some moment: of the request, of the wait, or of the answer."""
        asked = self.address.request(_asked(draws) | {"stream": True, "max_tokens": 5000})
        async with self.address.connected() as (reader, writer):
            if draws.random() < 0.4:
                writer.write(asked[: draws.randrange(len(asked))])
                await asyncio.sleep(draws.random())
                return 0
            writer.write(asked)
            wanted = draws.choice((0, 0, 1, 1000, 20_000))
            await asyncio.sleep(draws.random() * 2)
            if wanted:
                await reader.read(wanted)
        return 0

    async def garble(self, draws: random.Random) -> int:
        """Sends bytes at random, or a request with some of them changed."""
        data = bytearray(draws.randbytes(draws.randrange(1, 2000)))
        if draws.random() < 0.6:
            data = bytearray(self.address.request(_asked(draws)))
            for _ in range(draws.randrange(1, 12)):
                data[draws.randrange(len(data))] = draws.randrange(256)
        async with self.address.connected() as (reader, writer):
            writer.write(data)
            status, _ = await asyncio.wait_for(answer(reader), 3)
        return status

    async def overwhelm(self, draws: random.Random) -> int:
        """Asks for far too much, or for much; goes away if that takes long."""
        size = draws.choice((20_000, 200_000, 900_000, 1_100_000, 8_000_000))
        prompt = (_PROSE * (size // len(_PROSE) + 1))[:size]
        asked: dict[str, Any] = {"prompt": prompt, "max_tokens": 5}
        asked |= draws.choice(_LARGE)
        asked["stream"] = draws.random() < 0.5
        async with self.address.connected() as (reader, writer):
            writer.write(self.address.request(asked))
            status, _ = await asyncio.wait_for(answer(reader), draws.uniform(1, 15))
        return status

    async def err(self, draws: random.Random) -> int:
        """Makes mistakes, and is told which."""
        body, path, key, wanted = draws.choice(_MISTAKES)
        async with self.address.connected() as (reader, writer):
            writer.write(self.address.request(body, path, key))
            status, said = await answer(reader)
        # A mistake that is found when a text is begun may be met by a full house.
        if status not in (wanted, 429) or not json.loads(said)["error"]["message"]:
            raise NotAsPromisedError(f"{str(body)[:60]!r} at {path} was answered with {status}")
        return status

    async def dawdle_reading(self, draws: random.Random) -> int:
        """Reads a stream slowly, or not at all."""
        asked = {"prompt": _PROSE, "max_tokens": 10**5, "stream": True, "logprobs": 20}
        reads = draws.random() < 0.5
        async with self.address.connected() as (reader, writer):
            writer.write(self.address.request(asked))
            for _ in range(draws.randrange(5, 20)):
                await asyncio.sleep(1)
                if reads:
                    await reader.read(draws.randrange(1, 5000))
                else:
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
        return 0

    async def dawdle_writing(self, draws: random.Random) -> int:
        """Sends a request slowly, and perhaps not to its end."""
        data = self.address.request(_asked(draws))
        end = len(data) if draws.random() < 0.5 else draws.randrange(len(data))
        async with self.address.connected() as (reader, writer):
            step = draws.choice((20, 100))
            for begin in range(0, end, step):
                writer.write(data[begin : min(begin + step, end)])
                await asyncio.sleep(draws.random() / 5)
            if end < len(data) and draws.random() < 0.5:
                return 0
            status, _ = await asyncio.wait_for(answer(reader), 60)
        return status


def _asked(draws: random.Random) -> dict[str, Any]:
    """Returns what a client asks for; there are not so many possibilities, so they come again."""
    asked: dict[str, Any] = {
        "prompt": _PROSE[: draws.choice((1, 20, 70, 170))] * draws.choice((1, 1, 20)),
        "max_tokens": draws.choice((1, 20, 100, 400)),
        "seed": draws.randrange(3),
    }
    return asked | draws.choice(_SETTINGS) | draws.choice(_OPTIONS)


_SETTINGS: tuple[dict[str, Any], ...] = (
    *({}, {}, {"temperature": 0}),
    *({"top_k": 5}, {"top_p": 0.9}, {"logprobs": 3}),
)
_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"n": 3}, {"echo": True}, {"stop": ["\n", "the"]})
_LARGE: tuple[dict[str, Any], ...] = (
    *({}, {"echo": True, "logprobs": 1}),
    *({"n": 128}, {"max_tokens": 10**6}),
)

_MISTAKES: tuple[tuple[Any, str, str | None, int], ...] = (
    (b"", "/v1/completions", None, 400),
    (b"{", "/v1/completions", None, 400),
    (b"[" * 100_000, "/v1/completions", None, 400),
    (b'{"temperature": NaN}', "/v1/completions", None, 400),
    (b'{"prompt": "\\ud800"}', "/v1/completions", None, 400),
    (b"\xff\xfe\x00", "/v1/completions", None, 400),
    ({"prompt": [1, 2, 300]}, "/v1/completions", None, 400),
    ({"prompt": {"a": 1}}, "/v1/completions", None, 400),
    ({"max_tokens": "many"}, "/v1/completions", None, 400),
    ({"max_tokens": 10**300}, "/v1/completions", None, 400),
    ({"n": 10**6}, "/v1/completions", None, 400),
    ({"stop": ["x" * 10**5]}, "/v1/completions", None, 400),
    ({"cells": ["99:99"]}, "/v1/completions", None, 400),
    ({"prompt": "a", "model": "no such model"}, "/v1/completions", None, 404),
    ({"prompt": "a"}, "/v1/chat/completions", None, 404),
    ({"prompt": "a"}, "/v1/completions", "no such key", 401),
    ({"prompt": "a"}, "/v1/models", None, 405),
)

KINDS: dict[str, Callable[[Clients, random.Random], Awaitable[int]]] = {
    "readers": Clients.read,
    "vanishing": Clients.vanish,
    "garbling": Clients.garble,
    "overwhelming": Clients.overwhelm,
    "mistaken": Clients.err,
    "slow readers": Clients.dawdle_reading,
    "slow writers": Clients.dawdle_writing,
}
MEANINGS = {
    "readers": "ask for texts and read them; the same text whenever it is asked for",
    "vanishing": "go away while they ask, wait or read",
    "garbling": "send bytes at random",
    "overwhelming": "prompts of up to 8 MB, 128 choices, a million bytes",
    "mistaken": "wrong JSON, types, numbers, models, keys, paths",
    "slow readers": "read their stream slowly or not at all",
    "slow writers": "send their request slowly or in part",
}
