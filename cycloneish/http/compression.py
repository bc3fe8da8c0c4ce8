"""Gzip-encoded request bodies, inflated piece by piece and counted while they grow.

:class:`DecompressingDelegate` stands between the engine and the application when the server was made
with ``decompress_request=True``.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable
from typing import Any

from twisted.internet.task import deferLater

from cycloneish.coroutines import is_awaitable
from cycloneish.http.limits import Limits
from cycloneish.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

__all__ = ["DecompressingDelegate"]

_GZIP = 16 + zlib.MAX_WBITS
#: Pieces inflated before other connections get their turn.
_BURST = 16


class DecompressingDelegate(HTTPMessageDelegate):
    """Inflates the body of a request with ``Content-Encoding: gzip``; others pass as they are.

    :param delegate: gets the inflated body.
    :param exchange: the request; its ``max_body_size`` bounds the inflated size.
    :param limits: the limits of the server.
    :param reactor: gives the other connections their turn; what 64 KiB can hold takes a fifth of a second.

    The application finds the coding that was taken off in ``X-Consumed-Content-Encoding``, as with
    Tornado's ``decompress_request``.
    """

    def __init__(self, delegate: HTTPMessageDelegate, exchange: Any, limits: Limits, reactor: Any) -> None:
        self._delegate = delegate
        self._reactor = reactor
        self._gone = False
        self._exchange = exchange
        self._limits = limits
        self._inflator: Any = None
        self._inflated = 0
        self._members = 0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        coding = headers.get("Content-Encoding", "").lower()
        if coding in ("gzip", "x-gzip"):
            self._new_member()
            headers["X-Consumed-Content-Encoding"] = headers["Content-Encoding"]
            del headers["Content-Encoding"]
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        if self._inflator is None:
            return self._delegate.data_received(chunk)
        pieces = self._inflate(chunk)
        waiting = self._pass_on(pieces)
        return None if waiting is None else self._deliver(waiting, pieces)

    def _pass_on(self, pieces: Any) -> Awaitable[Any] | None:
        """Pass pieces on until something has to be waited for, if only the turn of the other connections."""
        for count, piece in enumerate(pieces, 1):
            result = self._delegate.data_received(piece)
            if result is not None and is_awaitable(result):
                return result
            if count == _BURST:
                return deferLater(self._reactor, 0)
        return None

    async def _deliver(self, waiting: Awaitable[Any] | None, pieces: Any) -> None:
        while waiting is not None:
            await waiting
            waiting = None if self._gone else self._pass_on(pieces)

    def finish(self) -> None:
        if self._inflator is not None and not self._inflator.eof:
            raise HTTPInputError("invalid gzip data: truncated")
        self._delegate.finish()

    def on_connection_close(self) -> None:
        self._gone = True
        self._delegate.on_connection_close()

    def _new_member(self) -> None:
        self._members += 1
        if self._members > self._limits.max_gzip_members:
            raise HTTPInputError("invalid gzip data: too many members")
        self._inflator = zlib.decompressobj(_GZIP)

    def _inflate(self, data: bytes) -> Any:
        """Yield *data* inflated in pieces of at most the chunk size; nothing ahead of its turn."""
        while data:
            if self._inflator.eof:
                self._new_member()
            try:
                piece = self._inflator.decompress(data, self._limits.chunk_size)
            except zlib.error as error:
                raise HTTPInputError(f"invalid gzip data: {error}") from None
            data = self._inflator.unused_data if self._inflator.eof else self._inflator.unconsumed_tail
            if piece:
                self._inflated += len(piece)
                if self._inflated > self._exchange.max_body_size:
                    raise HTTPInputError("decompressed body too large", status=413)
                yield piece
