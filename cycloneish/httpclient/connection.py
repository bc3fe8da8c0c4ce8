"""One HTTP/1.1 connection to a server: a request at a time goes out, its response comes in.

The pool makes these and hands them to whoever has a request (``Exchange``): the fetch, and the agent under
treq. Twisted's ``HTTP11ClientProtocol`` has no limits on interim responses, header size or body, reads no
``Content-Length: 2, 2``, and costs a chain of state objects and Deferreds for each request; the figures are
in ``benchmarks/client.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.coroutines import as_deferred, drive, is_awaitable
from cycloneish.http.chunked import ChunkedReader
from cycloneish.http.limits import Limits
from cycloneish.http.transport import send_now
from cycloneish.httpclient.heads import CHUNKED, UNTIL_CLOSE, body_framing, parse_response_head
from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine

__all__ = ["ClientConnection", "Exchange", "HeadTooLarge", "RequestBody", "ResponseLimits"]

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
#: More interim responses than these are an attack, or a server gone mad.
MAX_INTERIM_RESPONSES: Final = 10
#: Seconds to wait for ``100 Continue`` before the body is sent all the same (RFC 9110 section 10.1.1).
CONTINUE_TIMEOUT: Final = 3.0


class HeadTooLarge(HTTPInputError):
    """The head of a response is above its limit."""


@dataclass(frozen=True)
class ResponseLimits:
    """What is accepted from a server."""

    max_header_size: int = 65536
    """Status line and header fields, in bytes."""
    max_header_fields: int = 500
    """Number of header fields."""
    max_body_size: int = 104_857_600
    """Bytes of body, before and after decompression."""


class Exchange:
    """One request and what becomes of its response; subclasses say what that is.

    Attributes that the connection reads: *method*, *head* (bytes, complete), *body* (bytes or None),
    *producer* (a function that takes ``write``, or None), *expect_continue*, *max_body_size*, *keep_alive*.
    """

    method = "GET"
    head = b""
    body: bytes | None = None
    producer: Callable[[Callable[[bytes], Any]], Any] | None = None
    #: Bytes that *producer* announced; None for chunks.
    producer_length: int | None = None
    expect_continue = False
    max_body_size = 0
    keep_alive = True

    def head_received(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        """The head is there."""

    def data_received(self, data: bytes) -> Any:
        """A piece of the body is there; what can be awaited holds back the rest."""

    def finished(self) -> None:
        """The response is complete; the connection has been given back already."""

    def failed(self, error: BaseException, untouched: bool) -> None:
        """It will never be complete.

        :param untouched: nothing of the response had come, on a connection that had served before: the server
            had closed it.
        """


@implementer(IPushProducer)
class RequestBody:
    """Sends what a ``body_producer`` writes, no faster than the connection takes it.

    :param length: bytes announced in Content-Length; None sends chunks.
    """

    def __init__(self, transport: Any, length: int | None) -> None:
        self._transport = transport
        self._left = length
        self._paused: list[AwaitableDeferred[None]] = []
        self._is_paused = False
        self._ended = False

    def write(self, data: bytes | str) -> AwaitableDeferred[None]:
        """Send *data*.

        :returns: fires when more may be written.
        :raises ValueError: it is more than was announced.
        """
        if self._ended:
            raise RuntimeError("the request is over, its body can no longer be written")
        if isinstance(data, str):
            data = data.encode()
        fires: AwaitableDeferred[None] = AwaitableDeferred()
        if data:
            if self._left is None:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            else:
                self._left -= len(data)
                if self._left < 0:
                    raise ValueError("the body_producer wrote more than its Content-Length")
            self._transport.write(data)
        if self._is_paused:
            self._paused.append(fires)
        else:
            fires.callback(None)
        return fires

    def end(self) -> None:
        """The body is complete.

        :raises ValueError: it is shorter than was announced.
        """
        self.stop()
        if self._left is None:
            self._transport.write(b"0\r\n\r\n")
        elif self._left:
            raise ValueError(f"the body_producer wrote {self._left} bytes less than its Content-Length")

    def stop(self) -> None:
        """Nothing more will be written."""
        if not self._ended:
            self._ended = True
            self._transport.unregisterProducer()
            self._release()

    def _release(self) -> None:
        waiting, self._paused = self._paused, []
        for deferred in waiting:
            deferred.callback(None)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._release()

    def stopProducing(self) -> None:
        self._is_paused = False
        self._ended = True
        self._release()


class ClientConnection(Protocol):
    """A connection, before, between and in exchanges.

    :param limits: what is accepted.
    :param reactor: for the wait for ``100 Continue``.
    """

    transport: Any
    #: The pool's: called when the connection can be used again, and when it is gone.
    on_idle: Callable[[ClientConnection], None]
    on_closed: Callable[[ClientConnection], None]
    #: Seconds on the reactor's clock at which it became idle.
    idle_since = 0.0

    def __init__(self, limits: ResponseLimits, reactor: Any) -> None:
        self._limits = limits
        self._reactor = reactor
        self._exchange: Exchange | None = None
        self._served = 0
        self._closed = False
        self._paused = False
        self._buffer = b""
        self._reset()

    def _reset(self) -> None:
        self._read: Callable[[], bool] = self._read_head
        self._scanned = 0
        self._interim = 0
        self._got_anything = False
        self._left = 0
        self._size = 0
        self._chunked: ChunkedReader | None = None
        self._waiting: Deferred[Any] | None = None
        self._lost: Failure | None = None
        self._keep = False
        self._sent = True
        self._body: RequestBody | None = None
        self._producing: Deferred[Any] | None = None
        self._continue_timer: Any = None

    # -- sending -----------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether an exchange may begin."""
        return not self._closed and self._exchange is None

    def start(self, exchange: Exchange) -> None:
        """Send the request of *exchange*, which hears the rest."""
        self._exchange = exchange
        self._got_anything = False
        if exchange.expect_continue and (exchange.body is not None or exchange.producer is not None):
            self._sent = False
            send_now(self.transport, exchange.head)
            self._continue_timer = self._reactor.callLater(CONTINUE_TIMEOUT, self._send_body)
        elif exchange.producer is not None:
            self._sent = False
            send_now(self.transport, exchange.head)
            self._send_body()
        elif exchange.body:
            send_now(self.transport, exchange.head + exchange.body)
        else:
            send_now(self.transport, exchange.head)

    def _send_body(self) -> None:
        """Send the body, now that the server wants it or has not said otherwise."""
        self._stop_continue_timer()
        exchange = self._exchange
        if exchange is None or self._sent or self._body is not None:
            return
        if exchange.producer is None:
            self._sent = True
            if exchange.body:
                send_now(self.transport, exchange.body)
            return
        body = self._body = RequestBody(self.transport, exchange.producer_length)
        self.transport.registerProducer(body, True)
        try:
            producing = as_deferred(exchange.producer(body.write))
        except Exception as error:
            self._fail(error)
            return
        self._producing = producing
        producing.addCallbacks(self._body_written, self._body_failed, callbackArgs=(body,))

    def _body_written(self, _: Any, body: RequestBody) -> None:
        self._producing = None
        if body is not self._body:
            return  # the response came first
        try:
            body.end()
        except ValueError as error:
            self._fail(error)
            return
        self._sent = True

    def _body_failed(self, failure: Failure) -> None:
        self._producing = None
        if self._exchange is not None:  # else it was cancelled, as the response came first
            self._fail(_error_of(failure))

    def _stop_continue_timer(self) -> None:
        timer, self._continue_timer = self._continue_timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # -- receiving ---------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._exchange is None:
            # Nobody asked: whoever took it for the next response would be answered with another's.
            self.abort()
            return
        self._got_anything = True
        self._buffer = self._buffer + data if self._buffer else data
        if self._waiting is None:
            self._run()

    def _run(self) -> None:
        try:
            while self._read():
                pass
        except Exception as error:
            self._fail(error)

    def _read_head(self) -> bool:
        buffer = self._buffer
        end = _HEAD_END.search(buffer, self._scanned)
        limit = self._limits.max_header_size
        if (len(buffer) if end is None else end.end()) > limit:
            raise HeadTooLarge(f"the head of the response is larger than {limit} bytes")
        if end is None:
            self._scanned = max(0, len(buffer) - 3)
            return False
        self._scanned = 0
        self._buffer = buffer[end.end() :]
        start_line, headers = parse_response_head(buffer[: end.start()], self._limits.max_header_fields)
        exchange = self._exchange
        assert exchange is not None
        if start_line.code < 100:
            raise HTTPInputError(f"{start_line.code:03d} is no status code")
        if start_line.code < 200:
            self._interim_response(start_line)
            return bool(self._buffer)
        self._stop_continue_timer()
        length = body_framing(exchange.method, start_line, headers)
        self._keep = (
            exchange.keep_alive
            and length != UNTIL_CLOSE
            and _keeps_alive(start_line, headers.get("Connection"))
        )
        if length > exchange.max_body_size:
            raise HTTPInputError("Content-Length too long")
        exchange.head_received(start_line, headers)
        if self._exchange is not exchange:
            return False  # it was cancelled by what it did
        if length == 0:
            self._complete()
            return False
        if length > 0:
            self._left = length
            self._read = self._read_length
        elif length == CHUNKED:
            self._chunked = ChunkedReader(_CHUNK_LIMITS)
            self._read = self._read_chunks
        else:
            self._read = self._read_until_close
        return bool(self._buffer)

    def _interim_response(self, start_line: ResponseStartLine) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM_RESPONSES:
            raise HTTPInputError("Too many 1xx responses")
        if start_line.code == 101:
            raise HTTPInputError("101 Switching Protocols, which nobody asked for")
        if start_line.code == 100 and not self._sent:
            self._send_body()

    def _read_length(self) -> bool:
        data = self._buffer
        if not data:
            return False
        left = self._left
        if len(data) > left:
            data, self._buffer = data[:left], data[left:]
        else:
            self._buffer = b""
        self._left = left - len(data)
        return self._deliver(data) and self._end_of_length()

    def _end_of_length(self) -> bool:
        if self._left:
            return bool(self._buffer)
        self._complete()
        return False

    def _read_chunks(self) -> bool:
        reader = self._chunked
        assert reader is not None
        assert self._exchange is not None
        data, self._buffer = self._buffer, b""
        piece = reader.read(data, _PIECE)
        self._size += len(piece)
        if self._size > self._exchange.max_body_size:
            raise HTTPInputError("chunked body too large")
        if reader.complete:
            self._buffer, reader.rest = reader.rest, b""
        if piece and not self._deliver(piece):
            return False
        return self._end_of_chunks(bool(piece))

    def _end_of_chunks(self, progress: bool = True) -> bool:
        assert self._chunked is not None
        if self._chunked.complete:
            self._complete()
            return False
        return progress and bool(self._chunked.rest or self._buffer)

    def _read_until_close(self) -> bool:
        data, self._buffer = self._buffer, b""
        if not data:
            return False
        assert self._exchange is not None
        self._size += len(data)
        if self._size > self._exchange.max_body_size:
            raise HTTPInputError("Body too long")
        return self._deliver(data)

    def _deliver(self, data: bytes) -> bool:
        """Hand *data* on; false where the rest has to wait, or where there is no more exchange."""
        exchange = self._exchange
        assert exchange is not None
        result = exchange.data_received(data)
        if self._exchange is not exchange:
            return False
        if result is None or not is_awaitable(result):
            return True
        waiting: Deferred[Any] = drive(result)
        if waiting.called and not waiting.paused and not isinstance(waiting.result, Failure):
            return True
        self._waiting = waiting
        self._paused = True
        self.transport.pauseProducing()
        waiting.addCallbacks(self._go_on, self._callback_failed)
        return False

    def _go_on(self, _: Any) -> None:
        self._waiting = None
        if self._exchange is None:
            return
        try:
            if self._read == self._read_length:
                more = self._end_of_length()
            elif self._read == self._read_chunks:
                more = self._end_of_chunks()
            else:
                more = bool(self._buffer)
        except Exception as error:
            self._fail(error)
            return
        if more:
            self._run()
        if self._waiting is not None or self._exchange is None:
            return
        if self._lost is not None:
            self._connection_ended(self._lost)
        else:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def _callback_failed(self, failure: Failure) -> None:
        self._waiting = None
        if self._exchange is not None:
            self._fail(_error_of(failure))

    # -- ending ------------------------------------------------------------------------------------

    def _complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._served += 1
        reusable = self._keep and self._sent and not self._buffer and self._lost is None and not self._closed
        self._stop_body()
        if reusable:
            self._resume()
            self._reset()
            self.on_idle(self)
        else:
            self._closed = True
            self._stop_continue_timer()
            if self._sent:
                self.transport.loseConnection()
            else:
                self.transport.abortConnection()
        exchange.finished()

    def _stop_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.stop()
        producing, self._producing = self._producing, None
        if producing is not None:
            producing.cancel()

    def _fail(self, error: BaseException) -> None:
        """The exchange ends with *error*, and so does the connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        untouched = self._served > 0 and not self._got_anything and isinstance(error, ConnectionEnded)
        self.abort()
        self._stop_body()
        exchange.failed(error, untouched)

    def abort(self) -> None:
        """Close at once, whatever is in flight; the exchange hears nothing."""
        self._exchange = None
        self._stop_continue_timer()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        self._stop_body()
        if not self._closed:
            self._closed = True
            if self.transport is not None:
                self.transport.abortConnection()

    def close(self) -> None:
        """Close a connection that is idle."""
        if not self._closed:
            self._closed = True
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._closed = True
        self.on_closed(self)
        if self._exchange is None:
            return
        if self._waiting is not None:
            self._lost = reason  # what has arrived is delivered first
        else:
            self._connection_ended(reason)

    def _connection_ended(self, reason: Failure) -> None:
        if self._read == self._read_until_close and reason.check(ConnectionDone):
            self._complete()
        else:
            self._fail(ConnectionEnded(reason))


class ConnectionEnded(Exception):
    """The connection was lost in the middle of an exchange.

    :param reason: what the transport says about it.
    """

    def __init__(self, reason: Failure) -> None:
        super().__init__("Connection closed")
        self.reason = reason


def _error_of(failure: Failure) -> BaseException:
    return failure.value or ConnectionEnded(failure)


_PIECE: Final = 65536
_CHUNK_LIMITS: Final = Limits()


def _keeps_alive(start_line: ResponseStartLine, connection: str | None) -> bool:
    if connection is None:
        return start_line.version == "HTTP/1.1"
    tokens = {token.strip() for token in connection.lower().split(",")}
    if "close" in tokens:
        return False
    return start_line.version == "HTTP/1.1" or "keep-alive" in tokens
