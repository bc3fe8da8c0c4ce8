"""The HTTP server: a Twisted protocol factory with the constructor and methods of Tornado's.

It owns what the connections share: limits, time-outs, the facts about peers, the listening ports.
:class:`~cycloneish.web.Application` makes one for itself when it is given to ``reactor.listenTCP``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, ISSLTransport
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from cycloneish.coroutines import drive, is_awaitable
from cycloneish.http.compression import DecompressingDelegate
from cycloneish.http.connection import ServerConnection
from cycloneish.http.cyclone_request import HTTPRequest
from cycloneish.http.deadlines import Deadlines
from cycloneish.http.exchange import ConnectionContext
from cycloneish.http.http1 import HTTP1ServerConnection
from cycloneish.http.limits import Limits
from cycloneish.http.reading import Readers, readers_for
from cycloneish.http.tls_endpoint import parse_ssl_endpoint
from cycloneish.http.tornado_server import TornadoServer
from cycloneish.http.transport import Outbox
from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from cycloneish.iostream import StreamClosedError
from cycloneish.log import app_log

if TYPE_CHECKING:
    import ssl

__all__ = ["HTTPRequest", "HTTPServer"]


RequestCallback = Callable[[HTTPServerRequest], Any]

_ADDRESS_CHARACTERS = re.compile(r"[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]{1,32})?")

_BACKLOG = 128


class HTTPServer(Factory, TornadoServer):
    """Serves an application, a router or a plain function over HTTP/1.1.

    :param request_callback: an :class:`~cycloneish.web.Application`, any
        :class:`~cycloneish.httputil.HTTPServerConnectionDelegate`, or a function that is called with
        each complete :class:`~cycloneish.httputil.HTTPServerRequest`; it may be ``async def``.
    :param no_keep_alive: close each connection after one request.
    :param xheaders: believe ``X-Real-Ip``/``X-Forwarded-For`` and ``X-Scheme``/``X-Forwarded-Proto``.
        Only for servers that cannot be reached but through a proxy.
    :param ssl_options: a dict with ``certfile`` and, where it is in another file, ``keyfile``; further keys
        are those of :class:`~cycloneish.http.tls.ServerTLS`.  Ports opened by this server then speak TLS.
    :param protocol: what ``request.protocol`` says (``"https"`` behind a proxy that ends TLS).
    :param decompress_request: inflate request bodies in gzip coding.
    :param chunk_size: largest piece of a body that is delivered at once, in bytes.
    :param max_header_size: request line and headers, in bytes.
    :param idle_connection_timeout: seconds between two requests on one connection.
    :param body_timeout: seconds for the whole body of a request; without it a slow body is bounded by
        ``body_grace`` and ``body_min_rate`` of :class:`~cycloneish.http.limits.Limits`.
    :param max_body_size: bytes of body, after decompression.
    :param max_buffer_size: the same as *max_body_size*, which goes first.
    :param trusted_downstream: addresses of further proxies whose entries in ``X-Forwarded-For`` are
        skipped.
    :param limits: the limits that have no argument of their own.
    :param tornado_statuses: refuse as Tornado's server does, for clients that look at it: a body over the
        limit is 400 instead of 413, an unknown version or coding 400; a head over the limit and a body or
        head that does not arrive in time close the connection without an answer, instead of 431, 414, 408.
    :param reactor: the reactor; the global one is taken when it is first needed.

    It is a Twisted factory: ``reactor.listenTCP(8888, HTTPServer(app))`` works as well as
    :meth:`listen`.  Counterpart: ``tornado.httpserver.HTTPServer``.
    """

    noisy = False

    def __init__(
        self,
        request_callback: HTTPServerConnectionDelegate | RequestCallback,
        no_keep_alive: bool = False,
        xheaders: bool = False,
        ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
        protocol: str | None = None,
        decompress_request: bool = False,
        chunk_size: int | None = None,
        max_header_size: int | None = None,
        idle_connection_timeout: float | None = None,
        body_timeout: float | None = None,
        max_body_size: int | None = None,
        max_buffer_size: int | None = None,
        trusted_downstream: Collection[str] | None = None,
        *,
        limits: Limits | None = None,
        tornado_statuses: bool = False,
        reactor: Any = None,
    ) -> None:
        given = {
            "chunk_size": chunk_size,
            "max_header_size": max_header_size,
            "idle_connection_timeout": idle_connection_timeout,
            "body_timeout": body_timeout,
            "max_body_size": max_buffer_size if max_body_size is None else max_body_size,
        }
        self.limits = replace(limits or Limits(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        self.no_keep_alive = no_keep_alive
        self.xheaders = xheaders
        self.protocol_name = protocol
        self.decompress_request = decompress_request
        self.trusted_downstream = frozenset(trusted_downstream or ())
        self.tornado_statuses = tornado_statuses
        self.stopping = False
        self.request_callback = request_callback
        self._delegate = (
            request_callback
            if isinstance(request_callback, HTTPServerConnectionDelegate)
            else _FunctionDelegate(request_callback)
        )
        self._reports_close = (
            type(self._delegate).on_close is not HTTPServerConnectionDelegate.on_close
            or type(self).on_close is not HTTPServer.on_close
        )
        self.ssl_options = ssl_options
        self._tls_options = _tls_options(ssl_options) if ssl_options is not None else None
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._pending: list[tuple[Any, ...]] = []
        self._all_closed: list[Deferred[None]] = []
        self._connections: set[ServerConnection] = set()
        if not (xheaders or decompress_request):
            # Nothing stands between the engine and the application: one call less for each request.
            self.start_request = self._delegate.start_request  # type: ignore[method-assign]

    @property
    def reactor(self) -> Any:
        """The reactor that this server uses."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    @cached_property
    def deadlines(self) -> Deadlines:
        """The time-outs of all connections."""
        limits = self.limits
        shortest = min(
            limits.header_timeout,
            limits.idle_connection_timeout,
            limits.body_grace,
            limits.drain_timeout,
            limits.write_timeout,
            limits.body_timeout or limits.body_grace,
        )
        return Deadlines(self.reactor, shortest)

    @cached_property
    def outbox(self) -> Outbox:
        """The connections that have something to send."""
        return Outbox(self.reactor)

    @cached_property
    def readers(self) -> Readers | None:
        """What reads from the connections, where it is not the reactor itself."""
        return readers_for(self.reactor, self.outbox)

    # -- opening ports -----------------------------------------------------------------------------

    @overload
    def listen(
        self,
        port: int,
        address: str | None = None,
        family: int = ...,
        backlog: int = ...,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> IListeningPort: ...

    @overload
    def listen(
        self,
        port: str,
        address: None = None,
        family: int = ...,
        backlog: int = ...,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> Deferred[IListeningPort]: ...

    def listen(
        self,
        port: int | str,
        address: str | None = None,
        family: int = socket.AF_UNSPEC,
        backlog: int = _BACKLOG,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> IListeningPort | Deferred[IListeningPort]:
        """Open a port and serve it.

        :param port: a TCP port number, 0 for any; or a Twisted endpoint string such as
            ``"tcp:8888:interface=127.0.0.1"``, ``"unix:/run/x.sock"``, ``"ssl:8443:privateKey=…"``
            (:mod:`cycloneish.http.tls_endpoint`) or ``"systemd:domain=INET:index=0"``.
        :param address: interface to listen on, all by default.  Only with a port number.
        :param family: not used, as Twisted takes it from *address*; so for *flags*.
        :param backlog: connections that may wait to be accepted.
        :param reuse_port: let other processes open the same port and share its connections.
        :returns: the listening port; for an endpoint string a Deferred of it.
        :raises twisted.internet.error.CannotListenError: the port is taken or not allowed.
        """
        if isinstance(port, str):
            return self._listen_endpoint(port)
        backlog = backlog or _BACKLOG
        if reuse_port:
            sockets = [_reusable_socket(port, address, backlog)]
            self.add_sockets(sockets)
            return self._ports[-1]
        listening: IListeningPort
        if self._tls_options is not None:
            listening = self.reactor.listenSSL(port, self, self._tls_options, backlog, address or "")
        else:
            listening = self.reactor.listenTCP(port, self, backlog, address or "")
        return self._opened(listening)

    def _listen_endpoint(self, description: str) -> Deferred[IListeningPort]:
        from twisted.internet.endpoints import serverFromString

        factory = self._tls_factory()
        if description.startswith("ssl:"):
            description, options = parse_ssl_endpoint(description)
            factory = self._wrapped(_tls_options(options))
        endpoint = serverFromString(self.reactor, description)
        listening: Deferred[IListeningPort] = endpoint.listen(factory)
        return listening.addCallback(self._opened)

    def bind(
        self,
        port: int,
        address: str | None = None,
        family: int = socket.AF_UNSPEC,
        backlog: int = _BACKLOG,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Remember a port for :meth:`start` to open; the arguments are those of :meth:`listen`."""
        self._pending.append((port, address, family, backlog, flags, reuse_port))

    def start(self, num_processes: int | None = 1, max_restarts: int | None = None) -> None:
        """Open the ports given to :meth:`bind`.

        :param num_processes: one.  A Twisted reactor cannot be forked once it exists; several
            processes share a port with ``reuse_port=True`` or a ``systemd:`` endpoint instead.
        """
        if num_processes != 1:
            raise ValueError(
                "HTTPServer.start() serves from one process; start several with reuse_port=True each"
            )
        pending, self._pending = self._pending, []
        for arguments in pending:
            self.listen(*arguments)

    def add_socket(self, socket: socket.socket) -> None:
        """Serve a socket that is bound and listens already; it stays the caller's to close."""
        socket.setblocking(False)
        self._opened(self.reactor.adoptStreamPort(socket.fileno(), socket.family, self._tls_factory()))

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Serve several sockets, see :meth:`add_socket`. They are closed, Twisted has its own handles."""
        for sock in sockets:
            self.add_socket(sock)
            sock.close()

    def _opened(self, port: IListeningPort) -> IListeningPort:
        self._ports.append(port)
        self.stopping = False
        return port

    def _tls_factory(self) -> Any:
        return self if self._tls_options is None else self._wrapped(self._tls_options)

    def _wrapped(self, tls: Any) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return TLSMemoryBIOFactory(tls, False, self, self.reactor)

    @property
    def ports(self) -> list[IListeningPort]:
        """The ports that are open, in the order in which they were opened."""
        return list(self._ports)

    # -- closing -----------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Close the ports, let the requests in flight finish, then close their connections.

        Idle connections close at once.  What is not answered within ``limits.shutdown_timeout``
        seconds is aborted.

        :returns: a Deferred that fires when the last connection is gone.
        """
        self.stopping = True
        ports, self._ports = self._ports, []
        closing: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in ports]
        for connection in list(self._connections):
            connection.shut_down()
        done = self._when_empty()
        if self._connections:
            abort = self.reactor.callLater(self.limits.shutdown_timeout, self._abort_all)
            done.addBoth(_cancel_timer, abort)
        return DeferredList([*closing, done], consumeErrors=True).addCallback(lambda _: None)

    def close_all_connections(self) -> Deferred[None]:
        """Close all connections now; requests in flight are lost.

        :returns: a Deferred that fires when they are gone.
        """
        self._abort_all()
        return self._when_empty()

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _when_empty(self) -> Deferred[None]:
        if not self._connections:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._all_closed.append(empty)
        return empty

    # -- what Twisted and the connections call -----------------------------------------------------

    def buildProtocol(self, addr: IAddress | None) -> HTTP1ServerConnection:
        """Make the engine for a new connection."""
        connection = HTTP1ServerConnection(self)
        self._connections.add(connection)
        return connection

    def connection_lost(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if self._reports_close:
            self.on_close(connection)
        if not self._connections:
            waiting, self._all_closed = self._all_closed, []
            for deferred in waiting:
                deferred.callback(None)

    def on_close(self, server_conn: object) -> None:
        """Tell the application that a connection is gone."""
        self._delegate.on_close(server_conn)

    def make_context(self, transport: Any) -> ConnectionContext:
        """Describe the peer of a new connection."""
        protocol = self.protocol_name
        if protocol is None:
            protocol = "https" if ISSLTransport.providedBy(transport) else "http"
        peer = transport.getPeer()
        if isinstance(peer, (IPv4Address, IPv6Address)):
            return ConnectionContext((peer.host, peer.port), peer.host, protocol)
        return ConnectionContext(peer, "0.0.0.0", protocol)  # noqa: S104  what Tornado says for a Unix socket

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Begin a request on *server_conn* that is answered through *request_conn*."""
        delegate = self._delegate.start_request(server_conn, request_conn)
        if self.decompress_request:
            delegate = DecompressingDelegate(delegate, request_conn, self.limits, self.reactor)
        if self.xheaders:
            delegate = _ProxyDelegate(delegate, request_conn, self.trusted_downstream)
        return delegate


class _ProxyDelegate(HTTPMessageDelegate):
    """Takes the client's address and scheme from a proxy's headers before the application sees them."""

    def __init__(
        self, delegate: HTTPMessageDelegate, request_conn: HTTPConnection, trusted: frozenset[str]
    ) -> None:
        self._request_conn = request_conn
        self._trusted = trusted
        self._delegate = delegate
        self.data_received = delegate.data_received  # type: ignore[method-assign]
        self.finish = delegate.finish  # type: ignore[method-assign]
        self.on_connection_close = delegate.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        context = self._request_conn.context
        ip = context.remote_ip
        for hop in (part.strip() for part in reversed(headers.get("X-Forwarded-For", ip).split(","))):
            ip = hop
            if hop not in self._trusted:
                break
        ip = headers.get("X-Real-Ip", ip)
        scheme = headers.get("X-Scheme", headers.get("X-Forwarded-Proto", "")).split(",")[-1].strip()
        self._request_conn.context = ConnectionContext(
            context.address,
            ip if _is_ip_address(ip) else context.remote_ip,
            scheme if scheme in ("http", "https") else context.protocol,
        )
        return self._delegate.headers_received(start_line, headers)


class _FunctionDelegate(HTTPServerConnectionDelegate):
    """Calls a plain function with each complete request."""

    def __init__(self, function: RequestCallback) -> None:
        self._function = function

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _FunctionMessage(self._function, request_conn)


class _FunctionMessage(HTTPMessageDelegate):
    request: HTTPServerRequest

    def __init__(self, function: RequestCallback, request_conn: HTTPConnection) -> None:
        self._function = function
        self._connection = request_conn
        self._chunks: list[bytes] = []

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        if not isinstance(start_line, RequestStartLine):
            raise TypeError("a server takes requests")
        self.request = HTTPServerRequest(connection=self._connection, start_line=start_line, headers=headers)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        self._chunks.append(chunk)
        return None

    def finish(self) -> None:
        self.request.body = b"".join(self._chunks)
        result = self._function(self.request)
        if result is not None and is_awaitable(result):
            drive(result).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        """An asynchronous function failed: close, as the engine does for one that raises at once."""
        if failure.check(CancelledError, StreamClosedError) is None:
            app_log.error("Uncaught exception", exc_info=failure.value)
        connection: Any = self._connection
        if not connection.finished:
            connection.stream.close()


def _is_ip_address(text: str) -> bool:
    # Only IPv6 has zones (RFC 4007), and the standard library takes any text for one.
    if not _ADDRESS_CHARACTERS.fullmatch(text):
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _reusable_socket(port: int, address: str | None, backlog: int) -> socket.socket:
    """A listening socket whose port other processes may open too (SO_REUSEPORT)."""
    family = socket.AF_INET6 if address and ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address or "", port))
    sock.listen(backlog)
    return sock


def _cancel_timer(result: object, timer: Any) -> object:
    if timer.active():
        timer.cancel()
    return result


def _tls_options(options: dict[str, Any] | ssl.SSLContext) -> Any:
    """What Twisted needs to speak TLS; the TLS libraries are loaded only here."""
    from cycloneish.http.tls import server_options

    return server_options(options)
