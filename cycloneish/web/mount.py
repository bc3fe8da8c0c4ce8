"""What it takes to answer a request without a `RequestHandler`: the base class of what can be mounted.

`cycloneish.wsgi.WSGIContainer` and `cycloneish.resource.ResourceContainer` are built on it. Its callers
are `cycloneish.web.redirects.FallbackHandler`, the routers of `cycloneish.routing` and
`cycloneish.httpserver.HTTPServer`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish import httputil
from cycloneish.coroutines import drive, is_awaitable
from cycloneish.log import access_log

__all__ = [
    "HOP_BY_HOP",
    "Mountable",
    "MountedMessage",
    "break_off",
    "is_closed",
    "log_access",
    "transport_of",
]

HOP_BY_HOP = frozenset(
    ["Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"]
)
"""Headers of one connection (RFC 9110, section 7.6.1), which are for the engine to set."""


class MountedMessage(httputil.HTTPMessageDelegate):
    """A request that was taken over: gets the body, and says when it has been answered."""

    answered: Deferred[None]
    """Fires, with None, when the answer is complete or nobody is there to get it."""


class Mountable(httputil.HTTPServerConnectionDelegate):
    """A foreign application that takes over a request, its body and its answer.

    It can be the fallback of a `FallbackHandler`, the target of a routing rule, or the callback of an
    `HTTPServer`, and gets the body while it arrives. A subclass has `open_request`.
    """

    def open_request(self, request: httputil.HTTPServerRequest) -> MountedMessage:
        """Take over *request*, of which only the head is there.

        Returns what the body is given to: `data_received` for each part, `finish` at its end,
        `on_connection_close` if the client goes away before. The answer goes to `request.connection`.
        """
        raise NotImplementedError

    def start_request(
        self, server_conn: object, request_conn: httputil.HTTPConnection
    ) -> httputil.HTTPMessageDelegate:
        """Take the next request of a connection; called by the server or a router."""
        return _Message(self, server_conn, request_conn)

    def __call__(self, request: httputil.HTTPServerRequest) -> None:
        """Take over a request whose body has been read into `request.body`."""
        message = self.open_request(request)
        waiting = message.data_received(request.body) if request.body else None
        if waiting is not None and is_awaitable(waiting):
            taken: Deferred[None] = drive(waiting)
            taken.addCallback(lambda _: message.finish())
        else:
            message.finish()


class _Message(httputil.HTTPMessageDelegate):
    """One request that comes straight from the server, without a handler."""

    def __init__(self, target: Mountable, server_conn: object, request_conn: httputil.HTTPConnection) -> None:
        self._target = target
        self._server_conn = server_conn
        self._request_conn = request_conn
        self._opened: httputil.HTTPMessageDelegate | None = None

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> Awaitable[None] | None:
        request = httputil.HTTPServerRequest(
            connection=self._request_conn,
            server_connection=self._server_conn,
            start_line=start_line,  # type: ignore[arg-type]  # a server only ever sees requests
            headers=headers,
        )
        self._opened = self._target.open_request(request)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._opened.data_received(chunk) if self._opened is not None else None

    def finish(self) -> None:
        if self._opened is not None:
            self._opened.finish()

    def on_connection_close(self) -> None:
        if self._opened is not None:
            self._opened.on_connection_close()


def log_access(status: int, request: httputil.HTTPServerRequest) -> None:
    """Write the access log's line for an answer that no handler gave."""
    if status < 400:
        write = access_log.info
    elif status < 500:
        write = access_log.warning
    else:
        write = access_log.error
    duration = 1000.0 * request.request_time()
    write("%d %s %s (%s) %.2fms", status, request.method, request.uri, request.remote_ip, duration)


def break_off(connection: httputil.HTTPConnection) -> None:
    """Close the connection in the middle of an answer, so that the client knows it is not complete."""
    stream: Any = getattr(connection, "stream", connection)
    stream.abort()


def is_closed(connection: httputil.HTTPConnection) -> bool:
    """Whether the connection is gone in both directions; a client may shut its own alone, and still read."""
    closed = getattr(getattr(connection, "stream", None), "closed", None)
    return True if closed is None else bool(closed())


def transport_of(connection: httputil.HTTPConnection) -> Any:
    """Return the transport under *connection*, or None if it has none (HTTP/2, a test in memory)."""
    stream = getattr(connection, "stream", connection)
    return getattr(stream, "transport", None)
