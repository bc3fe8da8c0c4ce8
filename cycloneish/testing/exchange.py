"""One request through the real engine, without a socket.

:class:`Exchange` is the client's end of a connection in memory; the server's end is the protocol that
:class:`~cycloneish.httpserver.HTTPServer` makes for every connection.
:class:`~cycloneish.testing.Client` makes one exchange for each request.

The two ends take turns: the server gets bytes only while nothing of the server runs (:meth:`Exchange._pump`),
and what it writes is handed to the test only after it has returned. That is the order a socket keeps too.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from cycloneish.httputil import HTTPHeaders
from cycloneish.log import app_log
from cycloneish.testing.response import HTTPRequest, HTTPResponse
from cycloneish.testing.wire import ResponseReader

__all__ = ["Exchange", "IncompleteResponseError", "MemoryClock", "MemoryTransport"]

#: Bytes that a client which does not read may be sent before the server is asked to pause.
_BUFFER_SIZE = 65536
#: The server gets a body in pieces of this size, as from a socket.
_PIECE = 65536

# The exchange that the running code serves; a handler's task and callbacks inherit it.
_current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("exchange", default=None)


class IncompleteResponseError(ConnectionError):
    """The connection closed before the response was complete.

    :ivar response: what there was of it, or None when not even its headers came.
    """

    def __init__(self, message: str, response: HTTPResponse | None) -> None:
        super().__init__(message)
        self.response = response


def running_reactor() -> Any:
    """The global reactor if it is imported and runs, else None."""
    reactor = sys.modules.get("twisted.internet.reactor")
    return reactor if reactor is not None and getattr(reactor, "running", False) else None


class MemoryClock:
    """What the server takes for its reactor.

    Calls without delay are run by the exchanges; calls with one, which are the engine's time-outs, never,
    since nothing is slow in memory. Whatever else is asked of a reactor goes to the real one.
    """

    def __init__(self) -> None:
        self._due: deque[_Call] = deque()
        self.wake: Callable[[], None] = lambda: None

    def seconds(self) -> float:
        """Monotonic time."""
        return time.monotonic()

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> _Call:
        """Run *function* in the next turn when *delay* is 0, otherwise never."""
        call = _Call(function, args, kwargs)
        if delay <= 0:
            self._due.append(call)
            self.wake()
        return call

    def run(self) -> bool:
        """Run what is due; returns whether there was anything."""
        calls, self._due = self._due, deque()
        for call in calls:
            call.run()
        return bool(calls)

    def __getattr__(self, name: str) -> Any:
        from twisted.internet import reactor

        return getattr(reactor, name)


class _Call:
    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function: Callable[[], Any] | None = lambda: function(*args, **kwargs)

    def run(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()

    def cancel(self) -> None:
        self._function = None

    def active(self) -> bool:
        return self._function is not None


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryTransport:
    """The server's transport: what it writes lands in the exchange.

    :param exchange: the client's end.
    :param peer: address of the client.
    :param host: address of the server.
    :param secure: look like a TLS connection.
    """

    def __init__(self, exchange: Exchange, peer: IAddress, host: IAddress, secure: bool) -> None:
        self._exchange = exchange
        self._peer = peer
        self._host = host
        self._producer: Any = None
        self._streaming = True
        self.disconnecting = False
        self.disconnected = False
        #: Whether the server takes more of the request.
        self.reading = True
        if secure:
            directlyProvides(self, ITransport, IConsumer, IPushProducer, ISSLTransport)

    def write(self, data: bytes) -> None:
        if not self.disconnected:
            self._exchange._server_wrote(bytes(data))

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self, _reason: object = None) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._exchange._server_closed(ConnectionDone())

    def loseWriteConnection(self) -> None:
        # The client has nothing more to say to a server that says nothing more.
        self.loseConnection()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._exchange._server_closed(ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        self._streaming = streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True
        self._exchange._wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IAddress:
        return self._peer

    def getHost(self) -> IAddress:
        return self._host

    def getPeerCertificate(self) -> None:
        """No client certificate."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed in memory."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing gets lost in memory."""

    def full(self) -> None:
        """The client does not read: ask the server to pause."""
        if self._producer is not None and self._streaming:
            self._producer.pauseProducing()

    def drained(self) -> None:
        """The client has read it all."""
        if self._producer is not None:
            self._producer.resumeProducing()


class _ExceptionNotes(logging.Filter):
    """Notes for each exchange what its handler did not catch; stands on the application's logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        exchange = _current.get()
        if exchange is None or not record.exc_info or record.exc_info[1] is None:
            return True
        if exchange.exception is None:
            exchange.exception = record.exc_info[1]
        return not exchange.quiet


_notes = _ExceptionNotes()


class Exchange:
    """A request under way, and its response.

    Made by :meth:`Client.open() <cycloneish.testing.Client.open>`, for tests that look at a response
    while it comes, send a body piece by piece, read slowly, or go away::

        exchange = client.open("GET", "/events")
        yield exchange.when_headers()
        self.assertEqual((yield exchange.read()), b"data: 1\\n\\n")
        exchange.disconnect()

    :ivar request: the :class:`~cycloneish.testing.HTTPRequest`.
    :ivar exception: what the handler raised and did not catch, or None.
    :ivar quiet: keep that exception out of the log, since the test gets it.
    """

    def __init__(
        self,
        factory: Any,
        clock: MemoryClock,
        request: HTTPRequest,
        data: bytes,
        remote_ip: str = "127.0.0.1",
        secure: bool = False,
        chunked: bool = False,
        quiet: bool = False,
    ) -> None:
        self.request = request
        self.exception: BaseException | None = None
        self.quiet = quiet
        self._clock = clock
        self._chunked = chunked
        self._reader = ResponseReader(request.method)
        self._began = time.monotonic()
        self._took: float | None = None
        self._to_server: deque[bytes] = deque(
            data[start : start + _PIECE] for start in range(0, len(data), _PIECE)
        )
        # Written by the server, not yet looked at; and body that read() has not given out.
        self._written: deque[bytes] = deque()
        self._unread: deque[bytes] = deque()
        self._body: list[bytes] = []
        self._paused = False
        self._server_asked_to_pause = False
        self._closing: BaseException | None = None
        self._lost = False
        self._failed: BaseException | None = None
        self._pumping = False
        self._call: Any = None
        self._waiting_for_headers: list[Deferred[HTTPResponse]] = []
        self._waiting_for_end: list[Deferred[HTTPResponse]] = []
        self._waiting_for_data: Deferred[bytes] | None = None
        self._context = contextvars.copy_context()
        self._context.run(_current.set, self)
        if _notes not in app_log.filters:
            app_log.addFilter(_notes)
        address = IPv6Address if ":" in remote_ip else IPv4Address
        self._transport = MemoryTransport(
            self,
            address("TCP", remote_ip, 50000),
            address("TCP", "::1" if ":" in remote_ip else "127.0.0.1", 443 if secure else 80),
            secure,
        )
        self._protocol: IProtocol = factory.buildProtocol(self._transport.getPeer())
        self._context.run(self._protocol.makeConnection, self._transport)
        self._pump()

    # -- for tests

    @property
    def code(self) -> int:
        """The status, 0 as long as there is none."""
        return self._reader.code

    @property
    def headers(self) -> HTTPHeaders:
        """The headers of the response, empty as long as there are none."""
        return self._reader.headers

    @property
    def trailers(self) -> HTTPHeaders:
        """Trailer fields of the response."""
        return self._reader.trailers

    @property
    def informational(self) -> list[int]:
        """The codes of the responses before the response: 100 (Continue), 103."""
        return self._reader.informational

    @property
    def done(self) -> bool:
        """Whether the response is complete."""
        return self._reader.complete

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._lost

    @property
    def server_reads(self) -> bool:
        """Whether the server takes more of the request body, or has paused the connection."""
        return self._transport.reading

    def when_headers(self) -> Deferred[HTTPResponse]:
        """A Deferred of the response that fires when its headers are there; the body may be missing."""
        deferred: Deferred[HTTPResponse] = Deferred()
        self._waiting_for_headers.append(deferred)
        self._deliver()
        return deferred

    def when_done(self) -> Deferred[HTTPResponse]:
        """A Deferred that fires with the response when it is complete.

        It fails with :exc:`IncompleteResponseError` when the connection closes before. Cancelling it closes
        the connection, as a client does that loses patience.
        """
        deferred: Deferred[HTTPResponse] = Deferred(lambda _: self.disconnect())
        self._waiting_for_end.append(deferred)
        self._deliver()
        return deferred

    def read(self) -> Deferred[bytes]:
        """A Deferred of the next piece of the body, ``b""`` at its end.

        After a response with status 101 these are the bytes of the other protocol.
        """
        if self._waiting_for_data is not None and not self._waiting_for_data.called:
            raise RuntimeError("read() was called again before it had fired")
        deferred: Deferred[bytes] = Deferred()
        self._waiting_for_data = deferred
        self._deliver()
        return deferred

    def write(self, data: bytes) -> None:
        """Send a piece of the request body, framed if the exchange was opened with ``stream_body=True``.

        Behind a response with status 101 it is sent as it is.
        """
        if self._chunked and not self._reader.upgraded:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)

    def write_raw(self, data: bytes) -> None:
        """Send bytes that the exchange does not touch."""
        self._send(data)

    def finish(self) -> None:
        """End the request body."""
        if self._chunked:
            self._send(b"0\r\n\r\n")

    def pause(self) -> None:
        """Read no more, so that the server finds its send buffer full."""
        self._paused = True

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._pump()

    def disconnect(self) -> None:
        """Close the connection from the client's side, whatever the server is doing."""
        self._close(ConnectionDone("the client of the test disconnected"))

    def half_close(self) -> None:
        """Close the client's side only: the server reads the end of the request and may still answer."""
        protocol = IHalfCloseableProtocol(self._protocol, None)
        if protocol is None:
            self.disconnect()
        else:
            self._context.run(protocol.readConnectionLost)
            self._pump()

    # -- for the transport

    def _server_wrote(self, data: bytes) -> None:
        self._written.append(data)
        if self._paused and not self._server_asked_to_pause and sum(map(len, self._written)) > _BUFFER_SIZE:
            self._server_asked_to_pause = True
            self._transport.full()
        self._wake()

    def _server_closed(self, reason: BaseException) -> None:
        self._closing = self._closing or reason
        if isinstance(reason, ConnectionAborted):
            self._written.clear()
        self._wake()

    # -- turns

    def _send(self, data: bytes) -> None:
        if data and not self._lost:
            self._to_server.append(data)
            self._pump()

    def _wake(self) -> None:
        """Something is to be done, but the server's code is on the stack."""
        if self._pumping:
            return
        reactor = running_reactor()
        if reactor is None:
            # A test that is not asynchronous made it happen by hand, and looks at the outcome next.
            self._pumping = True
            try:
                self._take_output()
            finally:
                self._pumping = False
            self._deliver()
        elif self._call is None:
            self._call = reactor.callLater(0, self._called)

    def _called(self) -> None:
        self._call = None
        self._pump()

    def _pump(self) -> None:
        """Let both ends have their turns until nothing happens any more."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._turn():
                pass
        finally:
            self._pumping = False
        if self._call is not None and self._lost:
            self._call.cancel()
            self._call = None
        self._deliver()

    def _turn(self) -> bool:
        if self._clock.run():
            return True
        if self._to_server and self._transport.reading and not self._lost:
            self._context.run(self._protocol.dataReceived, self._to_server.popleft())
            return True
        if self._take_output():
            return True
        if self._closing is not None and not self._lost and not self._written:
            self._lose(self._closing)
            return True
        return False

    def _take_output(self) -> bool:
        if self._paused or not self._written:
            return False
        while self._written:
            try:
                self._take(self._reader.feed(self._written.popleft()))
            except Exception as error:
                self._failed = error
                self._closing = self._closing or error
                self._written.clear()
                break
        if self._reader.complete:
            # As a client that sends one request does; the server sees it in its next turn.
            self._closing = self._closing or ConnectionDone()
        if self._server_asked_to_pause:
            self._server_asked_to_pause = False
            self._context.run(self._transport.drained)
        return True

    def _take(self, body: bytes) -> None:
        if body:
            self._body.append(body)
            self._unread.append(body)

    def _close(self, reason: BaseException) -> None:
        if self._lost:
            return
        if self._pumping:
            self._closing = self._closing or reason
            return
        self._lose(reason)
        self._pump()

    def _lose(self, reason: BaseException) -> None:
        self._lost = True
        self._transport.disconnected = True
        self._transport.disconnecting = True
        self._to_server.clear()
        self._reader.connection_closed()
        self._context.run(self._protocol.connectionLost, Failure(reason))

    # -- what the test waits for

    def _deliver(self) -> None:
        if self._pumping:
            return
        over = self._lost
        if self._closing is not None and not self._written:
            over = True
            self._reader.connection_closed()
        complete = self._reader.complete
        if complete and self._took is None:
            self._took = time.monotonic() - self._began
        if self._reader.code or over:
            headers, self._waiting_for_headers = self._waiting_for_headers, []
            for deferred in headers:
                self._fire(deferred, bool(self._reader.code))
        if complete or over:
            ends, self._waiting_for_end = self._waiting_for_end, []
            for deferred in ends:
                self._fire(deferred, complete)
        waiting = self._waiting_for_data
        if waiting is not None and not waiting.called and (self._unread or complete or over):
            self._waiting_for_data = None
            data = b"".join(self._unread)
            self._unread.clear()
            waiting.callback(data)

    def _fire(self, deferred: Deferred[HTTPResponse], success: bool) -> None:
        if deferred.called:
            return
        if success:
            deferred.callback(self._response())
        elif self._failed is not None:
            deferred.errback(self._failed)
        else:
            request = f"{self.request.method} {self.request.url}"
            response = self._response() if self._reader.code else None
            got = "part of the response" if response is not None else "no response"
            error = IncompleteResponseError(f"{request}: the connection closed with {got}", response)
            error.__cause__ = self.exception
            deferred.errback(error)

    def _response(self) -> HTTPResponse:
        response = HTTPResponse(
            self.request,
            self._reader.code,
            self._reader.headers,
            BytesIO(b"".join(self._body)),
            reason=self._reader.reason,
            request_time=self._took,
        )
        response.exception = self.exception
        return response

    def __repr__(self) -> str:
        state = "closed" if self._lost else "open"
        return f"<{type(self).__name__} {self.request.method} {self.request.url} {self.code} {state}>"
