"""The routes of the server, as an ASGI application."""

import asyncio
import collections
import hmac
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from charlstm.errors import UserError
from charlstm.sampling import prompts
from charlstm.serving import answers, protocol
from charlstm.serving.answers import Choice
from charlstm.serving.metrics import CONTENT_TYPE, Metrics
from charlstm.serving.protocol import Limits, Refusal, Request
from charlstm.serving.sequences import Piece, Sequence, Wish
from charlstm.serving.served import Served

BODY_SECONDS = 30.0  # that a client may take to send its request
GRACE_SECONDS = 30.0  # that a client may take to read the rest of its answer
RETRY_AFTER = {"Retry-After": "1"}


class Service:
    """What all requests share.

    Args:
      models: by name.
      limits: of what a client may ask for.
      keys: of which a client must have one; none lets everybody in.
      page: the HTML at `/`.
    """

    def __init__(
        self, models: Mapping[str, Served], limits: Limits, keys: frozenset[str], page: str
    ):
        self.models, self.limits, self.page = models, limits, page
        self._keys = [key.encode() for key in keys]
        self.metrics = Metrics(lambda: {name: model.engine for name, model in models.items()})
        self.is_ending = False

    @property
    def is_ready(self) -> bool:
        """True if every model is compiled and no end is near."""
        engines = [model.engine for model in self.models.values()]
        return not self.is_ending and all(e.is_ready and not e.has_failed for e in engines)

    def require_key(self, request: HttpRequest) -> None:
        """Raises `Refusal` if a key is needed and the request has none of them."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        known = [hmac.compare_digest(key, given.strip().encode()) for key in self._keys]
        if self._keys and not (kind.lower() == "bearer" and any(known)):
            raise Refusal(
                "no valid API key was given: send it as `Authorization: Bearer KEY`",
                401,
                code="invalid_api_key",
            )

    def model(self, name: str | None) -> Served:
        """Returns a model; None stands for the only one.

        Raises:
          Refusal: there is no such model.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None or name not in self.models:
            asked = "a model must be named" if name is None else f"there is no model {name!r}"
            raise Refusal(
                f"{asked}; the models are {', '.join(self.models)}", 404, code="model_not_found"
            )
        return self.models[name]

    def begin(self, request: Request) -> "Work":
        """Hands the texts of a request to their model's engine.

        Raises:
          Refusal: the model does not know a byte of a prompt, has no such cell, or is too busy.
        """
        served = self.model(request.model)
        engine = served.engine
        if engine.has_failed:
            raise Refusal("the model has failed: see the server's log", 500, "server_error")
        count = len(request.prompts) * request.n
        if self.is_ending or not engine.is_ready:
            state = "ending" if self.is_ending else "still starting"
            raise Refusal(f"the server is {state}: try again", 503, "server_error")
        if engine.num_waiting + count > self.limits.waiting:
            raise Refusal(
                f"{engine.num_waiting} texts are waiting already: try again later",
                429,
                "rate_limit_error",
                "too_many_waiting",
            )
        work = Work(served, request, self.limits)
        engine.submit(work.texts)
        return work


class Work:
    """The texts of one request: the engine's thread makes them, the event loop answers.

    Args:
      served: the model.
      request: what is asked for.
      limits: of the server.
    """

    def __init__(self, served: Served, request: Request, limits: Limits):
        self.served, self.request = served, request
        self._pieces: collections.deque[tuple[int, Piece]] = collections.deque()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.prompt_tokens = self.completion_tokens = 0
        self.begun_at = time.monotonic()
        self.texts: list[Sequence] = []
        self.choices: list[Choice] = []
        model = served.engine.model
        cells = _cell_indices(request, *model.shape)
        seed = secrets.randbits(32) if request.seed is None else request.seed
        is_exact = request.seed is not None or request.settings.temperature == 0
        for given in request.prompts:
            prompt = given or prompts.default(model.alphabet)
            try:
                symbols = model.alphabet.encode(prompt)
            except UserError as error:
                raise Refusal(f"prompt: {error}") from error
            self.prompt_tokens += len(given)
            tells = request.logprobs is not None or bool(cells)
            for lane in range(request.n):
                index = len(self.texts)
                wish = Wish(
                    symbols,
                    request.settings,
                    seed,
                    lane,
                    request.max_tokens,
                    request.stops,
                    cells,
                    logits=request.logprobs is not None,
                    of_prompt=request.echo and tells and bool(given),
                    is_exact=is_exact and request.max_tokens > 1,
                    seconds=limits.seconds,
                )
                listener = _listener(self, index)
                self.texts.append(Sequence(wish, model.alphabet.decode_table, listener))
                echoed = given if request.echo and not wish.of_prompt else b""
                self.choices.append(
                    Choice(index, model.alphabet, request.logprobs, bool(cells), echoed)
                )

    def put(self, index: int, piece: Piece) -> None:
        """Takes a piece, in the engine's thread."""
        self._pieces.append((index, piece))
        if self.request.stream or piece.finish or piece.error:
            try:
                self._loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:  # the server has ended
                return

    async def parts(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields choices with what is new of them, until all texts have ended.

        Raises:
          Refusal: a text could not be finished.
        """
        left = len(self.texts)
        while left:
            await self._news.wait()
            self._news.clear()
            parts = []
            while self._pieces:
                index, piece = self._pieces.popleft()
                if piece.error:
                    raise Refusal(piece.error, 429, "rate_limit_error", "took_too_long")
                left -= bool(piece.finish)
                if not piece.is_prompt:
                    self.completion_tokens += len(piece.data)
                parts.append(self.choices[index].add(piece))
            if parts:
                yield parts

    def cancel(self) -> None:
        """Gives up what is not finished."""
        for text in self.texts:
            text.cancel()


def _listener(work: Work, index: int) -> Any:
    return lambda piece: work.put(index, piece)


def _cell_indices(request: Request, num_layers: int, hidden_size: int) -> tuple[int, ...]:
    for layer, cell in request.cells:
        if layer >= num_layers or cell >= hidden_size:
            raise Refusal(
                f"there is no cell {layer}:{cell}: the model has layers 0 to {num_layers - 1} and "
                f"in each cells 0 to {hidden_size - 1}"
            )
    return tuple(layer * hidden_size + cell for layer, cell in request.cells)


def application(service: Service) -> Starlette:
    """Returns the server's application."""

    async def page(_: HttpRequest) -> Response:
        return HTMLResponse(service.page)

    async def health(_: HttpRequest) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: HttpRequest) -> Response:
        is_ready = service.is_ready
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    async def metrics(_: HttpRequest) -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    async def models(request: HttpRequest) -> Response:
        service.require_key(request)
        described = [model.describe() for model in service.models.values()]
        return JSONResponse({"object": "list", "data": described})

    async def one_model(request: HttpRequest) -> Response:
        service.require_key(request)
        return JSONResponse(service.model(request.path_params["name"]).describe())

    async def completions(request: HttpRequest) -> Response:
        service.require_key(request)
        asked = protocol.parse(await _body(request, service.limits), service.limits)
        return _Answer(service, service.begin(asked))

    async def refused(_: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        service.metrics.requests.labels(error.status).inc()
        headers = RETRY_AFTER if error.status in (429, 503) else None
        return JSONResponse(error.content, error.status, headers)

    async def unknown(request: HttpRequest, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        what = f"{request.method} {request.url.path}"
        known = "GET /v1/models and POST /v1/completions are what this server has"
        return JSONResponse(Refusal(f"{what}: {known}", status).content, status)

    async def gone(_: HttpRequest, __: Exception) -> Response:
        return Response(status_code=499)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/completions", completions, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: refused,
            ClientDisconnect: gone,
            404: unknown,
            405: unknown,
        },
    )


async def _body(request: HttpRequest, limits: Limits) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise Refusal(
                        f"the request has more than {limits.body_bytes:,} bytes: shorten the prompt"
                    )
    except TimeoutError as error:
        raise Refusal(f"the request was not sent within {BODY_SECONDS:g} seconds") from error
    return bytes(body)


class _Answer(Response):
    """Answers a request, as a stream or at once, unless its client goes away."""

    def __init__(self, service: Service, work: Work):
        super().__init__()
        self._service, self._work = service, work
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": work.served.name,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        work, metrics = self._work, self._service.metrics
        answer = self._stream(send) if work.request.stream else self._whole(scope, receive, send)
        status = "499"  # as long as the client has not been answered
        try:
            async with asyncio.timeout(self._service.limits.seconds + GRACE_SECONDS):
                status = await _unless_gone(receive, answer) or status
        except (TimeoutError, OSError):  # it does not read, or it went away
            pass
        finally:
            work.cancel()
            metrics.requests.labels(status).inc()
            metrics.whole.observe(time.monotonic() - work.begun_at)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> str:
        work = self._work
        parts: list[list[dict[str, Any]]] = [[] for _ in work.choices]
        response: JSONResponse
        try:
            async for new in self._parts():
                for part in new:
                    parts[part["index"]].append(part)
            content = self._head | {
                "choices": [answers.merged(own) for own in parts],
                "usage": answers.usage(work.prompt_tokens, work.completion_tokens),
            }
            response = JSONResponse(content)
        except Refusal as error:
            response = JSONResponse(error.content, error.status, RETRY_AFTER)
        await response(scope, receive, send)
        return str(response.status_code)

    async def _stream(self, send: Send) -> str:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(*contents: Any) -> None:
            body = "".join(f"data: {json.dumps(content)}\n\n" for content in contents)
            await send({"type": "http.response.body", "body": body.encode(), "more_body": True})

        work = self._work
        try:
            async for new in self._parts():
                await write(*(self._head | {"choices": [part]} for part in new))
            if work.request.include_usage:
                total = answers.usage(work.prompt_tokens, work.completion_tokens)
                await write(self._head | {"choices": [], "usage": total})
        except Refusal as error:
            await write(error.content)
        end = b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end, "more_body": False})
        return "200"

    async def _parts(self) -> AsyncIterator[list[dict[str, Any]]]:
        work = self._work
        is_first = True
        async for parts in work.parts():
            if is_first and work.completion_tokens:
                self._service.metrics.first_byte.observe(time.monotonic() - work.begun_at)
                is_first = False
            yield parts


async def _unless_gone(receive: Receive, answer: Coroutine[Any, Any, str]) -> str | None:
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
