"""The routes of the server, as an ASGI application."""

import asyncio
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from charlstm.sampling import prompts
from charlstm.serving import protocol
from charlstm.serving.fields import Refusal
from charlstm.serving.metrics import CONTENT_TYPE
from charlstm.serving.responses import Answer, refusal_response
from charlstm.serving.service import Service

BODY_SECONDS = 30.0  # that a client may take to send its request
BODY_RATE = 2**14  # bytes a second, for which it may take longer


def application(service: Service) -> Starlette:
    """Returns the server's application."""
    routes = _Routes(service)
    handlers: dict[Any, Any] = {
        Refusal: _refused,
        ClientDisconnect: _gone,
        HTTPException: _unknown,
        Exception: _broken,
    }
    found = Starlette(
        routes=[
            Route("/", routes.page),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name:path}", routes.one_model),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            # Three routes that vLLM's server has, too; a token is a byte, whatever the model.
            Route("/tokenize", routes.tokenize, methods=["POST"]),
            Route("/detokenize", routes.detokenize, methods=["POST"]),
            Route("/tokenizer_info", routes.tokenizer_info),
        ],
        exception_handlers=handlers,
    )
    found.router.redirect_slashes = False  # a redirection would repeat what the client calls us
    return found


class _Routes:
    """Answers requests; a method for each route."""

    def __init__(self, service: Service):
        self._service = service

    def _require_key(self, request: Request) -> None:
        self._service.require_key(request.headers.get("authorization", ""))

    async def _body(self, request: Request) -> bytes:
        return await _body(request, self._service.limits.body_bytes)

    async def page(self, _: Request) -> Response:
        return HTMLResponse(self._service.page)

    async def health(self, _: Request) -> Response:
        failed = self._service.failed
        return PlainTextResponse("failed\n" if failed else "ok\n", 500 if failed else 200)

    async def ready(self, _: Request) -> Response:
        is_ready = self._service.is_ready
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Response:
        self._require_key(request)
        described = [model.describe() for model in self._service.models.values()]
        return JSONResponse({"object": "list", "data": described})

    async def one_model(self, request: Request) -> Response:
        self._require_key(request)
        return JSONResponse(self._service.model(request.path_params["name"]).describe())

    async def completions(self, request: Request) -> Response:
        service = self._service
        try:
            self._require_key(request)
            asked = protocol.parse(await self._body(request), service.limits)
            name, work = service.begin(asked)
            return Answer(name, work, service.limits.seconds, service.metrics)
        except Refusal as error:
            service.metrics.requests.labels(error.status).inc()
            raise
        except ClientDisconnect:
            service.metrics.requests.labels(499).inc()
            raise
        except Exception:
            service.metrics.requests.labels(500).inc()
            raise

    async def tokenize(self, request: Request) -> Response:
        self._require_key(request)
        tokens = list(protocol.parse_prompt(await self._body(request)))
        return JSONResponse({"tokens": tokens, "count": len(tokens)})

    async def detokenize(self, request: Request) -> Response:
        self._require_key(request)
        data = protocol.parse_tokens(await self._body(request))
        return JSONResponse({"prompt": data.decode(errors="replace")})

    async def tokenizer_info(self, request: Request) -> Response:
        self._require_key(request)
        first = next(iter(self._service.models.values())).engine.model.alphabet
        begin = prompts.default(first).decode("latin-1")
        told = {"tokenizer_class": "bytes", "vocab_size": 256}
        return JSONResponse(told | {"bos_token": begin, "eos_token": None, "pad_token": None})


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    # The rest of a request that comes too slowly is not waited for.
    return refusal_response(error, closes=error.status == 408)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = f"there is no {request.method} {request.url.path[:100]}"
    known = "GET /v1/models and POST /v1/completions are what this server has"
    content = Refusal(f"{found}; {known}", error.status_code).content
    return JSONResponse(content, error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _broken(request: Request, error: Exception) -> Response:
    logging.error("%s %s has failed", request.method, request.url.path, exc_info=error)
    said = "the server has made a mistake: its log says which"
    return refusal_response(Refusal(said, 500, "server_error"), closes=True)


async def _body(request: Request, most: int) -> bytes:
    """Returns the body of a request.

    Raises:
      Refusal: it has more than so many bytes, or comes too slowly.
    """
    body = bytearray()
    begin = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(BODY_SECONDS) as until:
            if int(request.headers.get("content-length", 0)) > most:
                raise _too_large(most)
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _too_large(most)
                until.reschedule(begin + BODY_SECONDS + len(body) / BODY_RATE)
    except TimeoutError as error:
        raise Refusal("the request came too slowly: send it again", 408) from error
    return bytes(body)


def _too_large(most: int) -> Refusal:
    return Refusal(f"the request has more than {most:,} bytes: shorten the prompt", 413)
