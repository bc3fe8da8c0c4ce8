"""One request and its response on an HTTP/1 connection: the ``request.connection`` of Tornado's API.

:mod:`~cycloneish.http.http1` makes one for each request; the web layer writes its answer through it.
It decides how a response is delimited, and holds the application to the Content-Length it announced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IProtocol

from cycloneish.http.deadlines import Deadlines
from cycloneish.http.head import RequestHead
from cycloneish.http.limits import Limits
from cycloneish.http.reading import Readers
from cycloneish.http.response import WriteDeferred, response_head
from cycloneish.http.transport import Outbox
from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
)
from cycloneish.log import app_log

if TYPE_CHECKING:
    from cycloneish.http.connection import ServerConnection
    from cycloneish.http.http1 import HTTP1ServerConnection

__all__ = ["ConnectionContext", "ConnectionOwner", "HTTP1Exchange"]


class ConnectionContext:
    """Who is at the other end: shared by the requests of a connection, or made anew behind a proxy.

    :param address: the peer's address as a socket gives it.
    :param remote_ip: textual address, ``"0.0.0.0"`` for a Unix socket.
    :param protocol: ``"http"`` or ``"https"``.
    """

    __slots__ = ("address", "protocol", "remote_ip")

    def __init__(self, address: Any, remote_ip: str, protocol: str) -> None:
        self.address = address
        self.remote_ip = remote_ip
        self.protocol = protocol

    def __str__(self) -> str:
        return self.remote_ip


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    no_keep_alive: bool
    stopping: bool
    tornado_statuses: bool

    @property
    def deadlines(self) -> Deadlines:
        """The time-outs of all connections."""

    @property
    def outbox(self) -> Outbox:
        """The connections that have something to send."""

    @property
    def readers(self) -> Readers | None:
        """What reads from the connections, where it is not the reactor itself."""

    @property
    def reactor(self) -> Any:
        """The reactor that carries the connections."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Begin a request."""

    def make_context(self, transport: Any) -> ConnectionContext:
        """Describe the peer of a new connection."""

    def connection_lost(self, connection: ServerConnection) -> None:
        """Forget a connection."""


#: From this size on a chunk is not copied to be framed.
_LARGE = 16384

#: Hears nothing: stands in before a delegate is made, and after it has done its work.
_NOBODY = HTTPMessageDelegate()


class HTTP1Exchange(HTTPConnection):
    """One request and its response; the ``request.connection`` of Tornado's API.

    Most attributes have their usual value in the class, so that a request only pays for what differs.
    """

    #: Hears of the request.
    delegate: HTTPMessageDelegate = _NOBODY
    #: The client's close() after half of the answer is no error; the handler may ask to be told.
    _close_callback: Callable[[], Any] | None = None
    #: Trailer fields of the request body, once it is read.
    trailers: HTTPHeaders | None = None
    body_timeout: float | None = None
    #: The head, or raw bytes, have been written.
    started = False
    #: The response is complete, or can no longer be.
    finished = False
    #: The request has been read to its end.
    read_done = False
    _awaits_continue = False
    _bodyless = False
    _chunked = False
    #: Bytes of body still owed under the Content-Length that was announced.
    _owed: int | None = None

    def __init__(self, connection: HTTP1ServerConnection, head: RequestHead) -> None:
        self._connection = connection
        self.context: ConnectionContext = connection.context
        self.head = head
        self.keep_alive = head.keep_alive
        self.max_body_size = connection.limits.max_body_size

    @property
    def stream(self) -> HTTP1ServerConnection:
        """The connection, which Tornado programs close with ``connection.stream.close()``."""
        return self._connection

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        self._close_callback = callback

    def set_max_body_size(self, max_body_size: int) -> None:
        self.max_body_size = max_body_size

    def set_body_timeout(self, timeout: float) -> None:
        self.body_timeout = timeout
        self._connection.body_timeout_changed(self)

    def detach(self, successor: IProtocol | None = None) -> Any:
        """Give the connection to *successor*, which gets what has arrived behind the request.

        :param successor: a protocol; it is connected to the transport at once.
        :returns: the transport.
        """
        return self._connection.detach(self, successor)

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> WriteDeferred:
        code, reason = start_line[1], start_line[2]
        if not isinstance(code, int):
            raise TypeError("write_headers needs a ResponseStartLine")
        if self.finished:
            return self._connection.written()
        if self.started:
            raise HTTPOutputError("The head of this response was written already")
        try:
            head = self._frame(code, reason, headers)
        except Exception:
            # The application may answer in another way, which is framed from the beginning.
            self._chunked = self._bodyless = False
            self._owed = None
            raise
        if code >= 200 or code == 101:
            self.started = True
        if not chunk:
            self._connection.send(head)
        elif self._owed is None and not self._chunked and not self._bodyless:
            self._connection.send(head + chunk)
        else:
            self._connection.send(head + self._body(chunk))
        return self._connection.written()

    def write(self, chunk: bytes) -> WriteDeferred:
        if not self.finished:
            if self.started:
                if self._chunked and len(chunk) >= _LARGE and not self._bodyless and self._owed is None:
                    connection = self._connection
                    connection.send_pieces([b"%x\r\n" % len(chunk), chunk, b"\r\n"])
                    return connection.written()
                chunk = self._body(chunk)
            else:
                # Whoever writes a whole response by hand frames it by hand, and only the end of the
                # connection can be relied on to end it.
                self.started = True
                self.keep_alive = False
            if chunk:
                self._connection.send(chunk)
        return self._connection.written()

    def finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        if self._owed and not self._bodyless:
            self._connection.close()
            raise HTTPOutputError(f"Tried to write {self._owed} bytes less than Content-Length")
        if self._chunked and not self._bodyless:
            self._connection.send(b"0\r\n\r\n")
        elif not self.started:
            self.keep_alive = False
        self._connection.response_done(self)
        if self.read_done:
            # The delegate knows this exchange: no cycle is left to the garbage collector.
            self.delegate = _NOBODY

    def _frame(self, code: int, reason: str, headers: HTTPHeaders) -> bytes:
        """Decide how the body is delimited (RFC 9112 section 6.3) and return the head."""
        values = headers._values
        extra = ""
        http11 = self.head.start_line.version == "HTTP/1.1"
        if code < 200:
            return response_head(code, reason, headers, "")
        length = values.get("Content-Length")
        if code in (204, 304) or self.head.start_line.method == "HEAD":
            self._bodyless = True
        if length is not None:
            if not isinstance(length, str) or not (length.isascii() and length.isdigit()):
                raise HTTPOutputError(f"Invalid Content-Length of a response: {length!r:.50}")
            self._owed = int(length)
        elif not self._bodyless:
            if http11 and "Transfer-Encoding" not in values:
                self._chunked = True
                extra = "Transfer-Encoding: chunked\r\n"
            elif not http11:
                self.keep_alive = False
        if "Connection" in values:
            if "close" in headers["Connection"].lower() or not self._connection.keeps_alive(self):
                self.keep_alive = False
        elif not self._connection.keeps_alive(self):
            self.keep_alive = False
            if http11:  # an HTTP/1.0 client expects nothing else
                extra += "Connection: close\r\n"
        elif not http11:
            extra += "Connection: Keep-Alive\r\n"
        return response_head(code, reason, headers, extra)

    def _body(self, chunk: bytes) -> bytes:
        """*chunk* as it goes over the wire."""
        if self._owed is not None:
            self._owed -= len(chunk)
            if self._owed < 0 and not self._bodyless:
                self._connection.close()
                raise HTTPOutputError("Tried to write more data than Content-Length")
        if self._bodyless or not chunk:
            return b""
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def peer_left(self) -> None:
        """Tell the application, once, that the client is gone."""
        callback, self._close_callback = self._close_callback, None
        try:
            if not self.read_done:
                self.read_done = True
                self.delegate.on_connection_close()
        except Exception:
            app_log.error("Uncaught exception in on_connection_close", exc_info=True)
        try:
            if callback is not None:
                callback()
        except Exception:
            app_log.error("Uncaught exception in a close callback", exc_info=True)
