"""HTTP over bare connections: for clients that do what no library would."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a server listens, and the key that it asks for."""

    host: str
    port: int
    key: str

    @classmethod
    def of(cls, url: str, key: str) -> "Address":
        """Returns the address of `http://HOST:PORT/`."""
        host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        return cls(host, int(port), key)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Streams]:
        """Connects; closes the connection at the end, whatever is still to be read or written."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def request(self, body: Any, path: str = "/v1/completions", key: str | None = None) -> bytes:
        """Returns a request; a body of bytes is sent as it is, and any other as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key if key is None else key}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Reads an answer: its status and its body.

    Raises:
      asyncio.IncompleteReadError: the connection ends before it is whole.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split()[1])
    _, has_length, length = head.partition(b"content-length:")
    if has_length:
        return status, await reader.readexactly(int(length.split()[0]))
    if b"transfer-encoding: chunked" not in head:
        return status, await reader.read()
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return status, body


def events(body: bytes) -> list[dict[str, Any]]:
    """Returns the events of a stream.

    Raises:
      ValueError: it does not end as a stream ends.
    """
    *lines, end, rest = body.decode().split("\n\n")
    if (end, rest) != ("data: [DONE]", ""):
        raise ValueError(f"the stream ends with {body[-100:]!r}")
    return [json.loads(line.removeprefix("data: ")) for line in lines]
