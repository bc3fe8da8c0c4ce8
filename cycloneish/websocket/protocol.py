"""The protocol of one connection, on either side: its life from the handshake to the end of the transport.

Reading is in :mod:`~cycloneish.websocket.receiving`, writing in :mod:`~cycloneish.websocket.sending`, the
handshakes in :mod:`~cycloneish.websocket.handshake` (server) and :mod:`~cycloneish.websocket.client`.
"""

from __future__ import annotations

import time
from asyncio import CancelledError as FutureCancelled
from collections.abc import Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import lru_cache
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from cycloneish.coroutines import drive
from cycloneish.escape import utf8
from cycloneish.http.transport import can_half_close, writer_for
from cycloneish.iostream import StreamClosedError
from cycloneish.log import gen_log
from cycloneish.websocket.deflate import Agreement, Deflate
from cycloneish.websocket.errors import (
    ABNORMAL_SILENCE,
    BAD_DATA,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    PROTOCOL_ERROR,
    WebSocketClosedError,
    is_sendable,
)
from cycloneish.websocket.handshake import accept_connection, accept_value
from cycloneish.websocket.params import STATISTICS, WebSocketParams
from cycloneish.websocket.receiving import _COMPRESSED, CLOSE, PING, PONG, Delegate, Receiver
from cycloneish.websocket.sending import Sender, outbox_of

__all__ = ["Stream", "WebSocketProtocol", "WebSocketProtocol13"]

#: How a callback ends whose peer has gone; not worth a line in the log.
_OVER: Final = (WebSocketClosedError, StreamClosedError, CancelledError, FutureCancelled)


class Stream:
    """The connection under a WebSocket, as Tornado programs know it: ``close``, ``closed``, ``set_nodelay``.

    :ivar transport: Twisted's transport.
    """

    __slots__ = ("_protocol",)

    def __init__(self, protocol: WebSocketProtocol13) -> None:
        self._protocol = protocol

    @property
    def transport(self) -> Any:
        """Twisted's transport."""
        return self._protocol.transport

    def close(self) -> None:
        """Close the connection when what was written is sent, without a close frame."""
        self._protocol.server_terminated = True
        self._protocol._lose_transport()

    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._protocol._lost

    def set_nodelay(self, value: bool) -> None:
        """See :meth:`WebSocketHandler.set_nodelay`."""
        self._protocol.set_nodelay(value)


class WebSocketProtocol:
    """Base of the versions of the protocol, of which there is one.

    :param handler: gets the messages.

    Counterpart: ``tornado.websocket.WebSocketProtocol``, and Cyclone's.
    """

    def __init__(self, handler: Delegate) -> None:
        self.handler = handler
        #: The peer has closed: its close frame is here, or the connection is gone.
        self.client_terminated = False
        #: This side has closed: its close frame is sent, or the connection is gone.
        self.server_terminated = False
        self.transport: Any = None

    selected_subprotocol: str | None = None
    """What was agreed on."""

    def accept_connection(self, handler: Any) -> None:
        """Answer a handler's request and take its connection."""
        raise NotImplementedError

    def write_message(self, message: str | bytes | Mapping[str, Any], binary: bool = False) -> Deferred[None]:
        """Send a message."""
        raise NotImplementedError

    def write_ping(self, data: bytes) -> None:
        """Send a ping."""
        raise NotImplementedError

    def start_pinging(self) -> None:
        """Send pings from now on."""
        raise NotImplementedError

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Whether it is being closed, or is gone."""
        raise NotImplementedError

    def on_connection_close(self) -> None:
        """Drop the connection."""
        raise NotImplementedError

    def set_nodelay(self, x: bool) -> None:
        """Send small messages at once, or let the kernel collect them."""
        raise NotImplementedError


@implementer(IProtocol, IPushProducer)
class WebSocketProtocol13(Receiver, Sender, WebSocketProtocol):
    """RFC 6455, version 13.

    :param handler: gets the messages.
    :param mask_outgoing: True on the client's side.
    :param params: the settings.

    Counterpart: ``tornado.websocket.WebSocketProtocol13``.
    """

    FIN = 0x80
    RSV1 = 0x40
    RSV2 = 0x20
    RSV3 = 0x10
    RSV_MASK = RSV1 | RSV2 | RSV3
    OPCODE_MASK = 0x0F

    #: What the peer's close frame said; where this side found fault, what it said. None where nobody did.
    close_code: int | None = None
    close_reason: str | None = None
    #: Called when messages can be sent.
    when_connected: Any = None

    _reactor: Any = None
    _ended = False
    _closing_timer: Any = None
    _ping_timer: Any = None
    _pinged_at = 0.0
    _received_pong = False
    _pong: Deferred[None] | None = None
    _pending_pong: bytes | None = None

    def __init__(self, handler: Delegate, mask_outgoing: bool, params: WebSocketParams) -> None:
        WebSocketProtocol.__init__(self, handler)
        Receiver.__init__(self)
        Sender.__init__(self)
        self.mask_outgoing = mask_outgoing
        self.params = params

    # -- beginning ---------------------------------------------------------------------------------

    @property
    def stream(self) -> Any:
        """The connection underneath, None before the handshake is done."""
        return Stream(self) if self.transport is not None else None

    @property
    def reactor(self) -> Any:
        """Gives ``callLater`` and ``seconds``."""
        reactor = self._reactor
        if reactor is None:
            reactor = self.params.reactor or getattr(self.transport, "reactor", None)
            if reactor is None:
                from twisted.internet import reactor
            self._reactor = reactor
        return reactor

    def accept_connection(self, handler: Any) -> None:
        """Answer the request of a :class:`~cycloneish.websocket.WebSocketHandler` and take its connection."""
        accept_connection(self, handler)

    @staticmethod
    def compute_accept_value(key: str | bytes) -> str:
        """What a server answers to the *Sec-WebSocket-Key* of a client."""
        return accept_value(utf8(key))

    def agree_on_compression(self, agreement: Agreement) -> None:
        """Compress from now on; called between handshake and first message."""
        options = self.params.compression_options or {}
        self._deflate = Deflate(agreement, self.mask_outgoing, options)
        self._allowed_firsts = _COMPRESSED

    def connectionMade(self) -> None:
        """Nothing: see :meth:`opened`."""

    def makeConnection(self, transport: Any) -> None:
        """Take the transport over; the handshake is done."""
        self.transport = transport
        self._writer = writer_for(transport, outbox_of(self.reactor))
        self._write = self._writer.write
        transport.registerProducer(self, True)
        STATISTICS.open += 1

    def opened(self, result: Any = None) -> None:
        """Deliver messages, as soon as *result*, which the application's ``open`` returned, is done."""
        if self._lost:
            return
        self.start_pinging()
        self._context = copy_context()
        if result is not None:
            self._wait_for(result)
        self._opening = False
        connected, self.when_connected = self.when_connected, None
        if connected is not None:
            connected()
        if self._running is None:
            self._go_on()

    # -- control frames ----------------------------------------------------------------------------

    def _handle_message(self, opcode: int, data: bytes) -> None:
        if opcode == PING:
            self._send_pong(data)
            self._call(self.handler.on_ping, data)
        elif opcode == PONG:
            self._received_pong = True
            self._call(self.handler.on_pong, data)
        elif opcode == CLOSE:
            self._closed_by_peer(data)

    def _call(self, callback: Any, data: bytes) -> None:
        try:
            result = callback(data)
        except (Exception, FutureCancelled) as error:
            self._callback_failed(error)
            return
        if result is not None:
            self._wait_for(result)

    def _send_pong(self, data: bytes) -> None:
        # RFC 6455 section 5.5.3: of pings that come faster than pongs can go, the last is answered. Whoever
        # sends pings and reads no pongs would otherwise fill the memory.
        if self._pong is not None:
            self._pending_pong = data
            return
        if self.server_terminated:
            return
        sent = drive(self._write_frame(True, PONG, data))
        if not sent.called:
            self._pong = sent
            sent.addCallbacks(self._pong_sent, self._pong_lost)

    def _pong_sent(self, _: object) -> None:
        self._pong = None
        data, self._pending_pong = self._pending_pong, None
        if data is not None:
            self._send_pong(data)

    def _pong_lost(self, _: Failure) -> None:
        self._pong = self._pending_pong = None

    def write_ping(self, data: bytes) -> None:
        """Send a ping.

        :param data: at most 125 bytes, which come back in the pong.
        """
        self._write_frame(True, PING, data)

    # -- pings -------------------------------------------------------------------------------------

    @property
    def ping_interval(self) -> float:
        """Seconds between two pings, 0 for none."""
        return self.params.ping_interval or 0

    @property
    def ping_timeout(self) -> float:
        """Seconds for the answer to one, 0 for any time; never longer than the interval."""
        timeout, interval = self.params.ping_timeout, self.ping_interval
        if timeout is None:
            return interval
        if interval and timeout > interval:
            _warn_of_timeout(timeout, interval)
            return interval
        return timeout

    def start_pinging(self) -> None:
        """Send pings from now on, if there is an interval for them."""
        if self._ping_timer is None and self.ping_interval > 0:
            self._ping_timer = self.reactor.callLater(self.ping_interval, self.periodic_ping)

    @staticmethod
    def ping_sleep_time(*, last_ping_time: float, interval: float, now: float) -> float:
        """Seconds until the next ping is due."""
        return max(0, last_ping_time + interval - now)

    def periodic_ping(self) -> None:
        """Send a ping and see to its answer, and to the next one."""
        self._received_pong = False
        self._pinged_at = time.monotonic()
        self.write_ping(b"")
        self._ping_timer = self.reactor.callLater(self.ping_timeout, self._look_for_pong)

    def _look_for_pong(self) -> None:
        self._ping_timer = None
        # While the application is busy, the pong may be among what has not been read.
        unread = self._running is not None or self._scheduled is not None
        if self.ping_timeout > 0 and not self._received_pong and not unread:
            self.close_code, self.close_reason = ABNORMAL_SILENCE, "ping timed out"
            self.close(ABNORMAL_SILENCE, "ping timed out")
            return
        pause = self.ping_sleep_time(
            last_ping_time=self._pinged_at, interval=self.ping_interval, now=time.monotonic()
        )
        self._ping_timer = self.reactor.callLater(pause, self.periodic_ping)

    # -- closing -----------------------------------------------------------------------------------

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Close the connection: send a close frame and wait for the peer's.

        :param code: 1000 to 1014 as RFC 6455 and its registry say, or 3000 to 4999.
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: such a code or reason cannot be sent.
        """
        if self.server_terminated:
            return
        if code is None and reason is not None:
            code = NORMAL
        if code is not None and not is_sendable(code):
            raise ValueError(
                f"{code} is no close code that can be sent: there are 1000 to 1014 and 3000 to 4999"
            )
        data = b"" if code is None else code.to_bytes(2, "big") + utf8(reason or "")
        self._write_frame(True, CLOSE, data)
        self.server_terminated = True
        self._stop_pinging()
        if self.client_terminated:
            self._handshake_over()
        else:
            self._close_after(self.params.close_timeout, self._abort)

    def is_closing(self) -> bool:
        """Whether one of the sides has begun to close, or the connection is gone."""
        return self.server_terminated or self.client_terminated

    def shut_down(self) -> None:
        """Close because the server stops; called by the HTTP engine."""
        self.close(GOING_AWAY, "the server stops")

    def set_nodelay(self, x: bool) -> None:
        """Send small messages at once, which is the default, or let the kernel collect them."""
        with suppress(AttributeError, OSError):  # a Unix socket, a transport in memory, a peer that left
            self.transport.setTcpNoDelay(x)

    def _closed_by_peer(self, data: bytes) -> None:
        if len(data) == 1:
            self._fail(PROTOCOL_ERROR, "malformed close frame")
            return
        if data:
            code = int.from_bytes(data[:2], "big")
            if not is_sendable(code):
                self._fail(PROTOCOL_ERROR, "invalid close code")
                return
            try:
                reason = data[2:].decode()
            except UnicodeDecodeError:
                self._fail(BAD_DATA, "reason is not UTF-8")
                return
            if code != self.close_code or reason:  # the echo of a code does not undo its reason
                self.close_code, self.close_reason = code, reason or None
        self.client_terminated = True
        self._deafen()
        if self.server_terminated:
            self._handshake_over()
        else:
            self.close(self.close_code)

    def _handshake_over(self) -> None:
        """Both have said that they close."""
        self._stop_closing_timer()
        if self.mask_outgoing:
            # RFC 6455 section 7.1.1: the server closes first, so that it is the client's port that rests.
            self._close_after(1.0, self._lose_transport)
        else:
            self._lose_transport()
        self._end()

    def _lose_transport(self) -> None:
        self._closing_timer = None
        self._let_go()
        self.transport.loseConnection()
        if not self._lost and self._write_paused:
            # What waits would keep the connection open for as long as the peer likes.
            self._close_after(self.params.close_timeout, self._abort)

    def _fail(self, code: int, reason: str) -> None:
        """End the connection (RFC 6455 section 7.1.7), and say why."""
        if self._lost:
            self._deafen()
            return
        if not self.server_terminated:
            self.close_code, self.close_reason = code, reason
            self._write_frame(True, CLOSE, code.to_bytes(2, "big") + reason.encode())
        self.server_terminated = self.client_terminated = True
        self._deafen()
        self._stop_pinging()
        self._stop_closing_timer()
        self._let_go()
        self._close_after(self.params.close_timeout, self._abort)
        if can_half_close(self.transport):
            # Unread bytes would reset the connection, and the reset overtake the close frame.
            self._adjust_reading()
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _callback_failed(self, error: BaseException) -> None:
        if not (self._lost and isinstance(error, _OVER)):
            self.handler.log_exception(type(error), error, error.__traceback__)
        if not self._ended:
            self._fail(INTERNAL_ERROR, "internal error")

    def _abort(self) -> None:
        """Drop the connection at once."""
        self._closing_timer = None
        self.client_terminated = self.server_terminated = True
        self._deafen()
        if self.transport is not None and not self._lost:
            self.transport.abortConnection()

    def _let_go(self) -> None:
        """Leave what was written to the transport, which is closed next."""
        if self._writer is not None:
            self._writer.flush()
        if not can_half_close(self.transport):
            # TLS does not close as long as there is a producer.
            self.transport.unregisterProducer()

    def _deafen(self) -> None:
        """Take no more messages."""
        self._deaf = True
        self._buffer = b""
        self._needed = 0
        self._fragments = self._utf8 = None

    def _close_after(self, seconds: float, action: Any) -> None:
        if self._closing_timer is None and not self._lost:
            self._closing_timer = self.reactor.callLater(seconds, action)

    def _stop_closing_timer(self) -> None:
        timer, self._closing_timer = self._closing_timer, None
        if timer is not None:
            timer.cancel()

    def _stop_pinging(self) -> None:
        timer, self._ping_timer = self._ping_timer, None
        if timer is not None:
            timer.cancel()

    # -- the end -----------------------------------------------------------------------------------

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        if self._lost:
            return
        self._lost = True
        self.server_terminated = True
        # What is written from now on waits for nothing.
        self._write_paused = True
        STATISTICS.open -= 1
        self._stop_closing_timer()
        self._stop_pinging()
        self._lose_waiters()
        if not self._busy:
            self._after_loss()

    def on_connection_close(self) -> None:
        """Drop the connection; Tornado's name."""
        self._abort()

    def _after_loss(self) -> None:
        if (self._running is not None or self._scheduled is not None or self._opening) and self._has_frame():
            return  # what came in time is still delivered
        running = self._running
        self._end()
        if running is not None and getattr(self.handler, "_cancels", bool)():
            running.cancel()

    def _has_frame(self) -> bool:
        return not self._deaf and len(self._buffer) >= self._needed

    def _end(self) -> None:
        """Tell the application, once."""
        if self._ended:
            return
        self._ended = True
        self.client_terminated = self.server_terminated = True
        self._deafen()
        scheduled, self._scheduled = self._scheduled, None
        if scheduled is not None:
            scheduled.cancel()
        counts = STATISTICS.by_close_code
        counts[self.close_code] = counts.get(self.close_code, 0) + 1
        tell = self.handler.on_ws_connection_close
        if self._context is not None:
            # A copy: this may be called by what the context runs.
            self._context.copy().run(tell, self.close_code, self.close_reason)
        else:
            tell(self.close_code, self.close_reason)


@lru_cache(maxsize=16)
def _warn_of_timeout(timeout: float, interval: float) -> None:
    gen_log.warning(
        "The websocket_ping_timeout (%s) cannot be longer than the websocket_ping_interval (%s), which is "
        "taken instead",
        timeout,
        interval,
    )
