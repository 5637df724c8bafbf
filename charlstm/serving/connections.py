"""A client's connection: it ends if no request comes, or none that is whole."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 30.0  # from the connection, or the last answer, to the head of a request


class Connection(H11Protocol):
    """A connection as uvicorn has it, and a deadline for the head of the next request.

    uvicorn itself would wait for it without end, once a byte of it has come.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._remove_deadline()

    def handle_events(self) -> None:
        """Acts on what was received."""
        super().handle_events()
        self._set_deadline()

    def on_response_complete(self) -> None:
        """Is called at the end of an answer."""
        super().on_response_complete()
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._remove_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _remove_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
