"""The client's end of a WebSocket: `websocket_connect` and what it gives."""

from __future__ import annotations

import concurrent.futures
import os
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.escape import utf8
from cycloneish.httpclient.connecting import Connector, basic_credentials
from cycloneish.httpclient.resolving import Resolving
from cycloneish.httputil import HTTPHeaders
from cycloneish.log import app_log
from cycloneish.websocket import deflate
from cycloneish.websocket.dialing import (
    Answer,
    Handshake,
    as_python_error,
    parse_url,
    request_head,
    route_for,
)
from cycloneish.websocket.errors import WebSocketClosedError, WebSocketError
from cycloneish.websocket.params import DEFAULT_MAX_MESSAGE_SIZE, WebSocketParams
from cycloneish.websocket.protocol import WebSocketProtocol13

__all__ = ["WebSocketClientConnection", "websocket_connect"]

Received = str | bytes | None

#: Messages that wait for `read_message` before no more are read from the connection.
_MOST_WAITING: Final = 16
_TIMEOUT: Final = 20.0


class WebSocketClientConnection:
    """A client's connection; made by :func:`websocket_connect`.

    ::

        connection = await websocket_connect("wss://example.com/feed")
        await connection.write_message("hello")
        async for message in connection:
            print(message)
        print(connection.close_code)

    :ivar headers: of the server's answer.
    :ivar close_code: what the connection was closed with, None if it ended without a close code.
    :ivar close_reason: so for the reason.
    :ivar protocol: the :class:`~cycloneish.websocket.WebSocketProtocol13`, None before the handshake.
    :ivar connect_future: the Deferred that :func:`websocket_connect` returns.

    Counterpart: ``tornado.websocket.WebSocketClientConnection``.
    """

    protocol: WebSocketProtocol13 | None = None
    headers: HTTPHeaders
    close_code: int | None = None
    close_reason: str | None = None
    _handshake: Handshake | None = None
    _connecting: Deferred[Any] | None = None
    _timer: Any = None
    _ended = False
    _room: Deferred[None] | None = None

    def __init__(
        self,
        request: Any,
        on_message_callback: Callable[[Received], Any] | None = None,
        compression_options: Mapping[str, Any] | None = None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
        subprotocols: list[str] | None = None,
        resolver: Any = None,
        reactor: Any = None,
    ) -> None:
        self.request = request
        self.connect_future: AwaitableDeferred[WebSocketClientConnection] = AwaitableDeferred(self._cancel)
        self.params = WebSocketParams(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_message_size=max_message_size,
            compression_options=compression_options,
            reactor=reactor,
        )
        self.key = b64encode(os.urandom(16)).decode()
        self._on_message_callback = on_message_callback
        self._subprotocols = list(subprotocols or ())
        self._received: deque[str | bytes] = deque()
        self._readers: deque[Deferred[Received]] = deque()
        self._closed_waiters: list[Deferred[None]] = []

    # -- connecting --------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Any, Handshake]:
        """The target and the handshake.

        :raises ValueError: the URL or a header cannot be.
        """
        request = self.request
        target = parse_url(request.url)
        given = HTTPHeaders(getattr(request, "headers", None) or {})
        username = getattr(request, "auth_username", None)
        if username is not None:
            password = getattr(request, "auth_password", None) or ""
            target = target._replace(credentials=basic_credentials(username, password))
        agent = getattr(request, "user_agent", None)
        if agent:
            given["User-Agent"] = agent
        more = HTTPHeaders()
        if self._subprotocols:
            more["Sec-WebSocket-Protocol"] = ",".join(self._subprotocols)
        options = self.params.compression_options
        if options is not None:
            more["Sec-WebSocket-Extensions"] = deflate.offer(options)
        head = request_head(target, self.key, given, more)
        return target, Handshake(head, self.key, self._subprotocols, options, self._answered)

    def _connect(self) -> None:
        """Begin; `connect_future` tells how it went."""
        reactor = self.params.reactor
        if reactor is None:
            from twisted.internet import reactor
        target, handshake = self._prepare()
        self._handshake = handshake
        whole = getattr(self.request, "request_timeout", None)
        whole = _TIMEOUT if whole is None else whole
        connect = getattr(self.request, "connect_timeout", None)
        connect = _TIMEOUT if connect is None else connect
        timeout = min(connect, whole) if connect and whole else connect or whole
        route = route_for(target, self.request)
        if whole:
            self._timer = reactor.callLater(max(whole, timeout), self._timed_out)
        connector = Connector(reactor, Resolving(reactor), lambda: handshake)
        self._connecting = connector.connect(route, timeout)
        self._connecting.addErrback(self._connect_failed)

    def _connect_failed(self, failure: Failure) -> None:
        if self._connecting is None:
            return  # given up, for a reason that the program is told
        self._fail(as_python_error(failure.value or WebSocketError()))

    def _timed_out(self) -> None:
        self._timer = None
        self._give_up()
        # Not the whole URL, which may hold a password or a token.
        self._fail(TimeoutError(f"no WebSocket from {parse_url(self.request.url).authority} in time"))

    def _cancel(self, _: Deferred[WebSocketClientConnection]) -> None:
        self._stop_timer()
        self._give_up()

    def _give_up(self) -> None:
        if self._handshake is not None:
            self._handshake.abort()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()

    def _answered(self, answer: Answer | BaseException) -> WebSocketProtocol13 | None:
        if isinstance(answer, BaseException):
            self._fail(answer)
            return None
        self._stop_timer()
        self.headers = answer.headers
        protocol = self.protocol = self.get_websocket_protocol()
        protocol.selected_subprotocol = answer.subprotocol
        if answer.agreement is not None:
            protocol.agree_on_compression(answer.agreement)
        # Only when the transport is the protocol's: whoever waits sends at once.
        protocol.when_connected = self._connected
        return protocol

    def get_websocket_protocol(self) -> WebSocketProtocol13:
        """Make the protocol of the connection."""
        return WebSocketProtocol13(self, True, self.params)

    def _connected(self) -> None:
        self._handshake = self._connecting = None
        if not self.connect_future.called:
            self.connect_future.callback(self)

    def _fail(self, error: BaseException) -> None:
        self._stop_timer()
        if not self.connect_future.called:
            self.connect_future.errback(error)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # -- messages ----------------------------------------------------------------------------------

    def write_message(self, message: str | bytes | Mapping[str, Any], binary: bool = False) -> Deferred[None]:
        """Send a message; see :meth:`WebSocketHandler.write_message`.

        :raises WebSocketClosedError: the connection is closed or closing.
        """
        if self.protocol is None:
            raise WebSocketClosedError("the connection is not open")
        return self.protocol.write_message(message, binary)

    def read_message(
        self, callback: Callable[[concurrent.futures.Future[Received]], Any] | None = None
    ) -> Deferred[Received]:
        """The next message.

        Nothing is read from the connection while 16 messages wait here. With an ``on_message_callback``, all
        messages go there.

        :param callback: called with a finished future, as in Tornado.
        :returns: a Deferred of the message: ``str`` for text, ``bytes`` for binary, None when the
            connection is closed.
        """
        message: AwaitableDeferred[Received]
        if self._received:
            message = _fired(self._received.popleft())
            room, self._room = self._room, None
            if room is not None:
                room.callback(None)
        elif self._ended:
            message = _fired(None)
        else:
            message = AwaitableDeferred(self._forget_reader)
            self._readers.append(message)
        if callback is not None:
            message.addBoth(_call_with_future, callback)
        return message

    def _forget_reader(self, reader: Deferred[Received]) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[str | bytes]:
        while (message := await self.read_message()) is not None:
            yield message

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Called by the protocol."""
        if self._on_message_callback is not None:
            return self._on_message_callback(message)  # type: ignore[no-any-return]
        if self._readers:
            self._readers.popleft().callback(message)
            return None
        self._received.append(message)
        if len(self._received) < _MOST_WAITING:
            return None
        self._room = Deferred()
        return self._room

    def ping(self, data: str | bytes = b"") -> None:
        """Send a ping.

        :param data: at most 125 bytes, which come back in the pong.
        """
        if self.protocol is None or self.protocol.is_closing():
            raise WebSocketClosedError("the connection is not open")
        self.protocol.write_ping(utf8(data))

    def on_ping(self, data: bytes) -> None:
        """Called for a ping, which is answered already; for subclasses."""

    def on_pong(self, data: bytes) -> None:
        """Called for the answer to a ping; for subclasses."""

    @property
    def selected_subprotocol(self) -> str | None:
        """What the server chose of the subprotocols."""
        return self.protocol.selected_subprotocol if self.protocol is not None else None

    @property
    def stream(self) -> Any:
        """The connection underneath, with ``close()``; None before the handshake."""
        return self.protocol.stream if self.protocol is not None else None

    # -- closing -----------------------------------------------------------------------------------

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection.

        :param code: 1000 to 1014 as RFC 6455 and its registry say, or 3000 to 4999 for an own meaning.
        :param reason: at most 123 bytes of UTF-8.
        """
        if self.protocol is not None:
            self.protocol.close(code, reason)

    def wait_closed(self) -> Deferred[None]:
        """A Deferred that fires when the connection is closed."""
        if self._ended:
            return _fired(None)
        waiter: AwaitableDeferred[None] = AwaitableDeferred(self._forget_waiter)
        self._closed_waiters.append(waiter)
        return waiter

    def _forget_waiter(self, waiter: Deferred[None]) -> None:
        if waiter in self._closed_waiters:
            self._closed_waiters.remove(waiter)

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        """Called by the protocol when the connection is closed."""
        self.close_code = close_code
        self.close_reason = close_reason
        self.on_connection_close()

    def on_connection_close(self) -> None:
        """Tell everybody who waits that nothing more comes."""
        if self._ended:
            return
        self._ended = True
        if self._on_message_callback is not None:
            try:
                self._on_message_callback(None)
            except Exception as error:
                self.log_exception(type(error), error, error.__traceback__)
        readers, self._readers = self._readers, deque()
        for reader in readers:
            reader.callback(None)
        waiters, self._closed_waiters = self._closed_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log what the callback raised."""
        app_log.error("Uncaught exception %s", value, exc_info=value)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self.wait_closed()


def _fired(result: Any) -> AwaitableDeferred[Any]:
    fired: AwaitableDeferred[Any] = AwaitableDeferred()
    fired.callback(result)
    return fired


def _call_with_future(result: Any, callback: Callable[[Any], Any]) -> Any:
    """Call Tornado's kind of callback: it gets a future that is done."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    if isinstance(result, Failure):
        future.set_exception(result.value)
    else:
        future.set_result(result)
    callback(future)
    return None if isinstance(result, Failure) and not result.check(CancelledError) else result


def websocket_connect(
    url: Any,
    callback: Callable[[concurrent.futures.Future[WebSocketClientConnection]], Any] | None = None,
    connect_timeout: float | None = None,
    on_message_callback: Callable[[Received], Any] | None = None,
    compression_options: Mapping[str, Any] | None = None,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
    subprotocols: list[str] | None = None,
    resolver: Any = None,
    *,
    reactor: Any = None,
) -> Deferred[WebSocketClientConnection]:
    """Open a WebSocket.

    :param url: with ``ws:`` or ``wss:``; or a request object with ``url`` and, as far as wanted, ``headers``,
        ``connect_timeout``, ``request_timeout``, ``auth_username``, ``auth_password``, ``ca_certs``,
        ``client_cert``, ``client_key``, ``validate_cert``, ``network_interface``. The certificate of a
        ``wss:`` server is checked against the system's authorities unless it says otherwise.
    :param callback: called with a finished future, as in Tornado.
    :param connect_timeout: seconds, 20 unless given; the handshake may take 20 as well.
    :param on_message_callback: called with each message, and with None when the connection is closed. While
        something it returns is awaited, no more is read. Without it, call
        :meth:`~WebSocketClientConnection.read_message`.
    :param compression_options: offers compression when it is no None; see
        :meth:`WebSocketHandler.get_compression_options`.
    :param ping_interval: seconds between two pings, None for none.
    :param ping_timeout: seconds for the answer to one, the interval unless given, 0 for any time.
    :param max_message_size: bytes that a received message may have, after decompression.
    :param subprotocols: to be offered, the most wanted first.
    :param resolver: not used; Twisted resolves names by itself.
    :param reactor: the global one unless given.
    :returns: a Deferred of a :class:`WebSocketClientConnection`. Cancelling it gives up. It fails with
        :exc:`HandshakeError` (with ``code``) when the server refuses, :exc:`WebSocketError` when it answers
        something else, :exc:`TimeoutError`, or :exc:`OSError` when there is no connection.
    :raises ValueError: the URL or a header cannot be.

    Counterpart: ``tornado.websocket.websocket_connect``.
    """
    request = url
    if isinstance(url, str):
        request = SimpleNamespace(url=url, connect_timeout=connect_timeout)
    elif connect_timeout is not None:
        raise TypeError("connect_timeout goes into the request object")
    connection = WebSocketClientConnection(
        request,
        on_message_callback=on_message_callback,
        compression_options=compression_options,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_message_size=max_message_size,
        subprotocols=subprotocols,
        resolver=resolver,
        reactor=reactor,
    )
    connection._connect()
    if callback is not None:
        connection.connect_future.addBoth(_call_with_future, callback)
    return connection.connect_future
