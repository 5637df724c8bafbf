"""The texts of one request: the engine's thread makes them, and the event loop takes what comes."""

import asyncio
import collections
import functools
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from charlstm.errors import UserError
from charlstm.sampling import prompts
from charlstm.serving.answers import Choice
from charlstm.serving.engine import Engine
from charlstm.serving.fields import TOOK_TOO_LONG, Refusal
from charlstm.serving.protocol import Limits, Request
from charlstm.serving.sequences import Piece, Sequence, Wish

# A text is not advanced while so much of its request is unread: then its client reads slowly.
MOST_UNREAD = 2**18


class Work:
    """The texts of one request; belongs to the event loop but for `put`.

    Args:
      engine: that is to make them.
      request: what is asked for.
      limits: of the server.

    Raises:
      Refusal: the model does not know a byte of a prompt, or has no such cell.
    """

    def __init__(self, engine: Engine, request: Request, limits: Limits):
        self.request = request
        self._pieces: collections.deque[tuple[int, Piece]] = collections.deque()
        self._num_put = self._num_taken = 0  # bytes; each is written by one thread
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.prompt_tokens = self.completion_tokens = 0
        self.begun_at = time.monotonic()
        self.texts: list[Sequence] = []
        self.choices: list[Choice] = []
        alphabet = engine.model.alphabet
        cells = _cell_indices(request, *engine.model.shape)
        tells = request.logprobs is not None or bool(cells)
        # Else what comes is read only when it is whole.
        self._is_read_at_once = request.stream or tells
        is_exact = request.seed is not None or request.settings.temperature == 0
        for given in request.prompts:
            try:
                symbols = alphabet.encode(given or prompts.default(alphabet))
            except UserError as error:
                raise Refusal(f"prompt: {error}") from error
            self.prompt_tokens += len(given)
            # Prompts of one request get texts of their own, also if they are equal.
            seed = secrets.randbits(32) if request.seed is None else request.seed
            for lane in range(request.n):
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
                    streams=request.stream,
                    seconds=limits.seconds,
                )
                index = len(self.texts)
                listener = functools.partial(self.put, index)
                text = Sequence(wish, alphabet.decode_table, listener, self._is_held_up)
                self.texts.append(text)
                echoed = given if request.echo and not wish.of_prompt else b""
                self.choices.append(Choice(index, alphabet, request.logprobs, bool(cells), echoed))

    def put(self, index: int, piece: Piece) -> None:
        """Takes a piece of a text, in the engine's thread."""
        self._num_put += piece.num_bytes
        self._pieces.append((index, piece))
        if self._is_read_at_once or piece.finish or piece.error:
            try:
                self._loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:  # the server has ended
                return

    def _is_held_up(self) -> bool:
        return self._is_read_at_once and self._num_put - self._num_taken > MOST_UNREAD

    async def parts(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields choices with what is new of them, until all texts have ended.

        Raises:
          Refusal: a text could not be finished.
        """
        left = len(self.texts)
        while left:
            await self._news.wait()
            self._news.clear()
            # What comes meanwhile has to wait: else a faster engine would never be held up.
            pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
            parts = []
            for index, piece in pieces:
                if piece.is_late:
                    raise Refusal(piece.error, 429, "rate_limit_error", TOOK_TOO_LONG)
                if piece.error:
                    raise Refusal(piece.error, 500, "server_error")
                left -= bool(piece.finish)
                if not piece.is_prompt:
                    self.completion_tokens += len(piece.data)
                parts.append(self.choices[index].add(piece))
            if parts:
                yield parts
            # Only what was sent on is read.
            self._num_taken += sum(piece.num_bytes for _, piece in pieces)

    def cancel(self) -> None:
        """Gives up what is not finished."""
        for text in self.texts:
            text.cancel()


def _cell_indices(request: Request, num_layers: int, hidden_size: int) -> tuple[int, ...]:
    for layer, cell in request.cells:
        if layer >= num_layers or cell >= hidden_size:
            raise Refusal(
                f"there is no cell {layer}:{cell}: the model has layers 0 to {num_layers - 1} and "
                f"in each cells 0 to {hidden_size - 1}"
            )
    return tuple(layer * hidden_size + cell for layer, cell in request.cells)
