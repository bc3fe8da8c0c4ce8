"""The three interfaces between a wire engine and what answers the request.

An engine (HTTP/1, HTTP/2, the in-memory test connection) calls ``start_request`` of an
:class:`HTTPServerConnectionDelegate` once per request and feeds the :class:`HTTPMessageDelegate` it gets;
the application writes its answer to the :class:`HTTPConnection`. Names and order of the calls are Tornado's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.httputil.grammar import RequestStartLine, ResponseStartLine
from cycloneish.httputil.headers import HTTPHeaders

__all__ = ["HTTPConnection", "HTTPMessageDelegate", "HTTPServerConnectionDelegate"]


class HTTPServerConnectionDelegate:
    """What an :class:`~cycloneish.httpserver.HTTPServer` serves: gets every request of every connection."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Return the object that receives the request that now begins.

        :param server_conn: stands for the long-lived connection; compare it, do not look into it.
        :param request_conn: where the answer to this one request is written.
        """
        raise NotImplementedError

    def on_close(self, server_conn: object) -> None:
        """Hear that the connection *server_conn*, known from :meth:`start_request`, has closed."""


class HTTPMessageDelegate:
    """Receives one message: the head, then the body in pieces, then its end or a lost connection."""

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        """Take the head. The body is not read before a returned awaitable or Deferred has fired."""

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        """Take a piece of the body. Reading stops until a returned awaitable or Deferred has fired."""

    def finish(self) -> None:
        """Hear that the message is complete."""

    def on_connection_close(self) -> None:
        """Hear that the connection closed before :meth:`finish` was called; only one of the two is called."""


class HTTPConnection:
    """Where the answer to one request is written, and the knobs of the engine that belong to this request."""

    #: The engine's facts about the peer: ``remote_ip``, ``protocol`` ("http", "https"), ``address``,
    #: ``trusted_downstream``.
    context: Any = None

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Deferred[None]:
        """Write the head, and *chunk* right behind it in the same transport write.

        The version in *start_line* is ignored, the engine writes its own.

        :returns: a Deferred that fires when the transport took the bytes and wants more.
        """
        raise NotImplementedError

    def write(self, chunk: bytes) -> Deferred[None]:
        """Write a piece of the body.

        :returns: a Deferred that fires when the transport took the bytes and wants more.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Say that the last piece of the body has been written."""
        raise NotImplementedError

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        """Have *callback* called when the connection closes before the answer is complete."""
        raise NotImplementedError

    def set_max_body_size(self, max_body_size: int) -> None:
        """Accept at most so many bytes of body for this request, counted after decompression."""
        raise NotImplementedError

    def set_body_timeout(self, timeout: float) -> None:
        """Give the body of this request so many seconds to arrive."""
        raise NotImplementedError

    def detach(self) -> Any:
        """Give up the connection and return its transport; WebSocket and ``CONNECT`` go on with it."""
        raise NotImplementedError
