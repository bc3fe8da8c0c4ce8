"""`WebSocketHandler`: the server's end of a WebSocket, in Tornado's words and in Cyclone's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from cycloneish.coroutines import drive, is_awaitable
from cycloneish.escape import utf8
from cycloneish.http.transport import unsent
from cycloneish.log import app_log, gen_log
from cycloneish.web.handler import RequestHandler
from cycloneish.web.mount import transport_of
from cycloneish.websocket.errors import WebSocketClosedError
from cycloneish.websocket.handshake import refusal
from cycloneish.websocket.params import DEFAULT_MAX_MESSAGE_SIZE, WebSocketParams
from cycloneish.websocket.protocol import WebSocketProtocol13
from cycloneish.websocket.sending import PreparedMessage

__all__ = ["WebSocketHandler"]

Message = str | bytes | Mapping[str, Any]


def _of_http(name: str) -> Any:
    """The method *name* of `RequestHandler`, until the connection is no longer HTTP's."""
    original = getattr(RequestHandler, name)

    @wraps(original)
    def method(self: WebSocketHandler, *args: Any, **kwargs: Any) -> Any:
        if self._upgraded:
            raise RuntimeError(f"{name}() is for HTTP: over a WebSocket there is write_message()")
        return original(self, *args, **kwargs)

    return method


class WebSocketHandler(RequestHandler):
    """Base of WebSocket handlers.

    ::

        class Echo(WebSocketHandler):
            def open(self) -> None:
                print("opened by", self.request.remote_ip)

            async def on_message(self, message) -> None:
                await self.write_message(message)

            def on_close(self) -> None:
                print("closed with", self.close_code)

    The request is an HTTP request until it is accepted: `prepare`, cookies, `get_current_user` and
    `set_default_headers` work as ever, and whatever answers it there refuses the WebSocket. `open`,
    `on_message` and `on_close` may be plain functions, `@inlineCallbacks` or `async def`; the next message
    comes when `on_message` is done with the last one, and meanwhile little is read from the connection.

    Settings of the application, each a property here that can be overridden: `websocket_ping_interval`,
    `websocket_ping_timeout`, `websocket_max_message_size`, `websocket_max_unsent`, `websocket_slow_policy`,
    `websocket_write_timeout`, `websocket_close_timeout`.

    Counterparts: `tornado.websocket.WebSocketHandler`, and `cyclone.websocket.WebSocketHandler` with
    `connectionMade`, `messageReceived`, `sendMessage` and `connectionLost`.
    """

    # Whatever follows a refused request was meant for the WebSocket, and must not be taken for a request.
    no_keep_alive = True

    ws_connection: WebSocketProtocol13 | None = None
    """The protocol, while the connection is open."""
    close_code: int | None = None
    """What the connection was closed with; None if it ended without a close code."""
    close_reason: str | None = None
    open_args: tuple[str, ...] = ()
    open_kwargs: Mapping[str, str] = {}

    _upgraded = False
    _on_close_called = False
    _closed: Deferred[None] | None = None
    _when_closed: list[Callable[[WebSocketHandler], Any]] | None = None

    write = _of_http("write")
    redirect = _of_http("redirect")
    set_header = _of_http("set_header")
    set_cookie = _of_http("set_cookie")
    set_status = _of_http("set_status")
    flush = _of_http("flush")
    finish = _of_http("finish")

    # -- what applications override ----------------------------------------------------------------

    def _open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
        self.connectionMade(*args, **kwargs)
        return None

    open: Callable[..., Awaitable[None] | None] = _open
    """Called when the connection is open, with the groups of the route's pattern. Messages wait until it is
    done."""

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Take a message; text comes as `str`, binary as `bytes`. The next one waits until it is done."""
        self.messageReceived(message)
        return None

    def on_ping(self, data: bytes) -> None:
        """Called for a ping, which is answered already."""

    def on_pong(self, data: bytes) -> None:
        """Called for the answer to a ping."""

    def on_close(self) -> None:
        """Called exactly once after `open`, however the connection ended; see `close_code` and
        `close_reason`."""
        lost = ConnectionLost() if self.close_code is None else ConnectionDone()
        self.connectionLost(Failure(lost))

    def check_origin(self, origin: str) -> bool:
        """Whether a page of another *origin* may open the WebSocket.

        Asked, after `prepare`, about origins other than the server's own only. Unless overridden, the setting
        `trusted_origins` says. Browsers send cookies along, whatever page opens the connection: whoever
        returns True for everybody must not trust them.
        """
        return self.check_trusted_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose one of what the client offers, which may be nothing; called once. None for none."""
        return None

    def get_compression_options(self) -> dict[str, Any] | None:
        """Whether to compress messages, and how: None for not at all, which is the default.

        The dictionary may be empty, or have:

        * `compression_level`: 0 to 9, 6 unless given; `mem_level`: 1 to 9, 8 unless given.
        * `server_no_context_takeover`, `client_no_context_takeover`: True to forget each message. A
          connection costs about 300 KB less then.
        * `server_max_window_bits`, `client_max_window_bits`: 9 to 15, the size of the memory of each side.
        * `min_size`: bytes below which a message is sent as it is.
        """
        return None

    def get_websocket_protocol(self) -> WebSocketProtocol13 | None:
        """Make the protocol for the version that the client asks for; None if there is none."""
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        settings = self.application.settings
        params = WebSocketParams(
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            max_message_size=self.max_message_size,
            compression_options=self.get_compression_options(),
            max_unsent=self.max_unsent,
            slow_policy=settings.get("websocket_slow_policy", "close"),
            write_timeout=settings.get("websocket_write_timeout", 300.0),
            close_timeout=settings.get("websocket_close_timeout", 5.0),
            reactor=settings.get("reactor"),
        )
        return WebSocketProtocol13(self, False, params)

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two pings; None or 0 for none. Setting `websocket_ping_interval`."""
        return self.application.settings.get("websocket_ping_interval")

    @property
    def ping_timeout(self) -> float | None:
        """Seconds for the answer to a ping, the interval unless given; 0 for any time. Setting
        `websocket_ping_timeout`."""
        return self.application.settings.get("websocket_ping_timeout")

    @property
    def max_message_size(self) -> int:
        """Bytes that a message may have, after decompression; 10 MiB. Setting
        `websocket_max_message_size`."""
        size: int = self.application.settings.get("websocket_max_message_size", DEFAULT_MAX_MESSAGE_SIZE)
        return size

    @property
    def max_unsent(self) -> int:
        """Bytes that may wait for a client that reads too slowly; 16 MiB. Setting `websocket_max_unsent`.

        Beyond that the setting `websocket_slow_policy` says what happens: "close" closes the connection with
        code 1013, "drop" drops the message. `STATISTICS` counts both.
        """
        size: int = self.application.settings.get("websocket_max_unsent", 16 * 1024 * 1024)
        return size

    # -- what applications call --------------------------------------------------------------------

    def write_message(self, message: Message, binary: bool = False) -> Deferred[None]:
        """Send a message.

        :param message: text, bytes, or a dictionary, which is sent as JSON.
        :param binary: send it as a binary message, which bytes should be.
        :returns: a Deferred that fires when the transport wants more: at once, or when a slow client has
            caught up. It fails with `WebSocketClosedError` if the connection is lost before.
        :raises WebSocketClosedError: the connection is closed, closing, or not open yet.
        """
        connection = self.ws_connection
        if connection is None:
            raise WebSocketClosedError("the connection is not open")
        return connection.write_message(message, binary)

    def write_prepared(self, message: PreparedMessage) -> Deferred[None]:
        """Send a message that is sent to others as well; otherwise as `write_message`."""
        connection = self.ws_connection
        if connection is None:
            raise WebSocketClosedError("the connection is not open")
        return connection.write_prepared(message)

    def ping(self, data: str | bytes = b"") -> None:
        """Send a ping.

        :param data: at most 125 bytes, which come back in `on_pong`.
        """
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            raise WebSocketClosedError("the connection is not open")
        connection.write_ping(utf8(data))

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection; `on_close` is called when the client has agreed, or after five seconds.

        :param code: 1000 to 1014 as RFC 6455 and its registry say, or 3000 to 4999 for an own meaning.
        :param reason: at most 123 bytes of UTF-8.
        """
        connection = self.ws_connection
        if connection is not None:
            connection.close(code, reason)
            self.ws_connection = None

    def call_when_closed(self, callback: Callable[[WebSocketHandler], Any]) -> None:
        """Have *callback* called with this handler after `on_close`."""
        if self._when_closed is None:
            self._when_closed = []
        self._when_closed.append(callback)

    def set_nodelay(self, value: bool) -> None:
        """Send small messages at once (True, the default here), or let the kernel collect them."""
        if self.ws_connection is None:
            raise WebSocketClosedError("the connection is not open")
        self.ws_connection.set_nodelay(value)

    @property
    def selected_subprotocol(self) -> str | None:
        """What `select_subprotocol` chose."""
        return self.ws_connection.selected_subprotocol if self.ws_connection is not None else None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client."""
        return unsent(self.ws_connection.transport) if self.ws_connection is not None else 0

    # -- Cyclone's names ---------------------------------------------------------------------------

    def headersReceived(self) -> None:
        """Override to look at the request before it is accepted; `forbidConnection` refuses it (Cyclone)."""

    def connectionMade(self, *args: Any, **kwargs: Any) -> None:
        """`open` under Cyclone's name."""

    def messageReceived(self, message: str | bytes) -> None:
        """`on_message` under Cyclone's name."""
        raise NotImplementedError(f"{type(self).__name__} has no on_message()")

    def connectionLost(self, reason: Failure) -> None:
        """`on_close` under Cyclone's name."""

    def sendMessage(self, message: Message) -> Deferred[None]:
        """`write_message` under Cyclone's name; bytes are sent as text."""
        return self.write_message(message)

    def forbidConnection(self, message: str) -> None:
        """Answer with 403 (Cyclone)."""
        self.set_status(403)
        self.finish(message)

    @property
    def transport(self) -> Any:
        """The transport of the connection (Cyclone)."""
        return transport_of(self.request.connection) if self.request.connection is not None else None

    @property
    def ws_protocol(self) -> WebSocketProtocol13 | None:
        """`ws_connection` under Cyclone's name."""
        return self.ws_connection

    # -- the life of a connection ------------------------------------------------------------------

    def get(self, *args: Any, **kwargs: Any) -> Awaitable[None] | None:
        """Accept the WebSocket, or refuse it.

        :returns: where it is overridden and called from there, a Deferred that fires when the connection is
            closed.
        """
        self.open_args, self.open_kwargs = args, kwargs
        refused = refusal(self.request)
        if refused is not None:
            self._refuse(400, refused)
            return None
        refused = self._check_cross_origin(self.check_origin)
        if refused is not None:
            gen_log.debug("WebSocket of another origin: %s", refused)
            self._refuse(403, "Cross origin websockets not allowed")
            return None
        self.headersReceived()
        if self._finished:
            return None
        protocol = self.get_websocket_protocol()
        if protocol is None:
            # RFC 6455 section 4.4
            self.set_header("Sec-WebSocket-Version", "13")
            self.set_header("Upgrade", "websocket")
            self._refuse(426, "Only version 13 is spoken here")
            return None
        if type(self).get is not WebSocketHandler.get:
            self._closed = Deferred()
        closed = self._closed
        protocol.accept_connection(self)
        return closed if self._upgraded else None

    def _refuse(self, status: int, message: str) -> None:
        gen_log.debug("WebSocket refused: %s", message)
        self.set_status(status)
        self.finish(message)

    def _upgrade(self, protocol: WebSocketProtocol13) -> None:
        """Send the answer and give *protocol* the transport."""
        connection: Any = self._connection()
        self.no_keep_alive = False
        self.flush()
        if self._watching:
            self._watching = False
            connection.set_close_callback(None)
        self._finished = self._upgraded = True
        self._conclude()
        self.ws_connection = protocol
        protocol._opening = True
        connection.detach(protocol)
        result: Any = None
        try:
            result = self.open(*self.open_args, **self.open_kwargs)
        except BaseException as error:
            protocol._callback_failed(error)
        protocol.opened(result)

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        """Called by the protocol when the connection is closed."""
        self.close_code = close_code
        self.close_reason = close_reason
        self.ws_connection = None
        if self._on_close_called:
            return
        self._on_close_called = True
        try:
            on_close: Callable[[], Any] = self.on_close
            result = on_close()
            if result is not None and is_awaitable(result):
                drive(result).addErrback(self._on_close_failed)
        except Exception:
            app_log.error("Uncaught exception in on_close %s", self._request_summary(), exc_info=True)
        callbacks, self._when_closed = self._when_closed, None
        for callback in callbacks or ():
            try:
                callback(self)
            except Exception:
                app_log.error("Uncaught exception of what followed on_close", exc_info=True)
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.callback(None)

    def _on_close_failed(self, failure: Failure) -> None:
        app_log.error("Uncaught exception in on_close %s", self._request_summary(), exc_info=failure.value)
