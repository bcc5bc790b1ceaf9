"""uvicorn's HTTP/1.1 for clients who mean harm: who connects and does not ask, or never finishes, is hung up on.

uvicorn has a clock only for connections at rest after an answer, and any byte stops it: half a head holds a connection
for ever, and so does a body that goes on after its answer.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Punctual(H11Protocol):
    """One clock for all the time in which no request is in progress; bytes do not stop it, a whole head does."""

    seconds = 10.0
    _until: asyncio.TimerHandle | None = None
    _unread = math.inf  # bytes of the last answer that waited for the client when the clock last rang

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        """Start the clock when nothing is in progress, stop it when something is."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._until is None:
            self._until = self.loop.call_later(self.seconds, self._ring)

    def _ring(self) -> None:
        """Hang up; but a client who still reads, however slowly, is waited for."""
        unread, self._until = self.transport.get_write_buffer_size(), None
        if 0 < unread < self._unread:
            self._unread = unread
            self._watch()
        else:
            self.transport.abort()

    def _rest(self) -> None:
        self._unread = math.inf
        if self._until is not None:
            self._until.cancel()
            self._until = None
