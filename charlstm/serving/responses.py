"""Sends the answer to a request for completions, as a stream or at once."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from charlstm.serving import answers
from charlstm.serving.fields import TOOK_TOO_LONG, Refusal
from charlstm.serving.metrics import Metrics
from charlstm.serving.work import Work

GRACE_SECONDS = 30.0  # that a client may take to read the rest of its answer
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


def refusal_response(error: Refusal, closes: bool = False) -> JSONResponse:
    """Returns the answer that says why there is no other.

    Args:
      error: why.
      closes: True if the connection ends with it.
    """
    headers = {}
    if error.code == TOOK_TOO_LONG:
        headers["X-Should-Retry"] = "false"  # OpenAI's client would ask twice more
    elif error.status in (429, 503):
        headers["Retry-After"] = "1"
    if closes:
        headers["Connection"] = "close"
    return JSONResponse(error.content, error.status, headers)


class Answer(Response):
    """Answers a request for completions, unless its client goes away.

    Args:
      name: of the model.
      work: the texts.
      seconds: after which the client is not waited for any more.
      metrics: what became of it is counted there.
    """

    def __init__(self, name: str, work: Work, seconds: float, metrics: Metrics):
        super().__init__()
        self._work, self._seconds, self._metrics = work, seconds, metrics
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": name,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        work, metrics = self._work, self._metrics
        answer = self._stream if work.request.stream else self._whole
        status = 499  # as long as the client has not been answered
        try:
            async with asyncio.timeout(self._seconds + GRACE_SECONDS):
                status = await _unless_gone(receive, answer(scope, receive, send)) or status
        except (TimeoutError, OSError):  # it does not read, or it went away
            pass
        except Exception:
            status = 500
            raise
        finally:
            work.cancel()
            metrics.requests.labels(status).inc()
            metrics.whole.observe(time.monotonic() - work.begun_at)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> int:
        work = self._work
        choices = [answers.Whole() for _ in work.choices]
        response: Response
        try:
            async for parts in self._parts():
                for part in parts:
                    choices[part["index"]].add(part)
            usage = answers.usage(work.prompt_tokens, work.completion_tokens)
            body = answers.whole_answer(self._head, choices, usage)
            response = Response(body, media_type="application/json")
        except Refusal as error:
            response = refusal_response(error)
        await response(scope, receive, send)
        return response.status_code

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> int:
        work, status = self._work, 200
        has_begun = False

        async def write(*contents: Any) -> None:
            nonlocal has_begun
            if not has_begun:  # until then a refusal can have its own status
                has_begun = True
                start = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
                await send(start)
            body = "".join(f"data: {json.dumps(content)}\n\n" for content in contents)
            await send({"type": "http.response.body", "body": body.encode(), "more_body": True})

        try:
            async for parts in self._parts():
                await write(*(self._head | {"choices": [part]} for part in parts))
            if work.request.include_usage:
                total = answers.usage(work.prompt_tokens, work.completion_tokens)
                await write(self._head | {"choices": [], "usage": total})
        except Refusal as error:
            if not has_begun:
                await refusal_response(error)(scope, receive, send)
                return error.status
            status = error.status
            await write(error.content)
        end = b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end, "more_body": False})
        return status

    async def _parts(self) -> AsyncIterator[list[dict[str, Any]]]:
        work = self._work
        is_first = True
        async for parts in work.parts():
            if is_first and work.completion_tokens and work.request.stream:
                self._metrics.first_byte.observe(time.monotonic() - work.begun_at)
                is_first = False
            yield parts


async def _unless_gone(receive: Receive, answer: Coroutine[Any, Any, int]) -> int | None:
    """Returns what a coroutine returns; cancels it, and returns None, if the client goes away."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(leave())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await answering if answering.done() else None
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
