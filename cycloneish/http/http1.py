"""The HTTP/1 engine: a Twisted protocol that frames requests and responses, and knows no handler.

:class:`~cycloneish.httpserver.HTTPServer` makes one :class:`HTTP1ServerConnection` for each
connection.  The connection reads one request at a time and hands it to a delegate; the delegate
answers through an :class:`~cycloneish.http.exchange.HTTP1Exchange`, one for each request, so that
what is written late can never land in the answer of another request.

The states that a connection goes through are in :mod:`~cycloneish.http.states`; what it shares with any
other connection, its ways to end above all, in :mod:`~cycloneish.http.connection`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from cycloneish.coroutines import drive, is_awaitable
from cycloneish.http.chunked import ChunkedReader
from cycloneish.http.connection import ServerConnection
from cycloneish.http.deadlines import NEVER
from cycloneish.http.exchange import HTTP1Exchange
from cycloneish.http.head import CHUNKED, check_partial_head, parse_request_head
from cycloneish.http.response import error_response, tornado_status
from cycloneish.http.states import ACCEPT, ANSWER, BODY, CLOSED, DETACHED, DRAIN, END, HEAD, LINGER
from cycloneish.http.transport import hang_up, unsent
from cycloneish.httputil import HTTPInputError
from cycloneish.iostream import StreamClosedError
from cycloneish.log import app_log, gen_log, safe_log_text

__all__ = ["HTTP1ServerConnection"]

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")


@implementer(IHalfCloseableProtocol, IPushProducer)
class HTTP1ServerConnection(ServerConnection):
    """One connection: requests in, one at a time; responses out, in their order.

    :param owner: the server.
    """

    _reader: ChunkedReader | None = None
    _remaining = 0
    _received = 0
    _body_began = 0.0
    _seen, _seen_since = -1, 0.0  # how much of the body was there when last looked at, and since when
    _held_since = 0.0
    _scanned = 0

    # -- what Twisted calls ------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._state == DETACHED:
            self._successor.dataReceived(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._process()

    def readConnectionLost(self) -> None:
        """The peer shut its side: it may still read, so what it asked for is still answered."""
        self._peer_shut = True
        if self._state == DETACHED:
            self._detached_half_close("readConnectionLost")
        elif self._state == LINGER:
            self._close()
        elif not self._busy:
            self._go_on_without_peer()

    def _go_on_without_peer(self) -> None:
        """Close, or go on with what is there, after the peer shut its side."""
        state = self._state
        if state == ANSWER:
            self._current().peer_left()
        elif state < LINGER and self._scheduled is None and not self._holding:
            waits_its_turn = state == HEAD and self._buffer and self._write_paused
            if not waits_its_turn:
                self._close()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._write_paused = False
        state = self._state
        if state == HEAD:
            self._set_idle_deadline()
            if self._buffer and not self._busy:
                self._process_soon()
        elif state == ANSWER:
            self.deadline = NEVER
        elif state == DRAIN:
            self.deadline = self._deadlines.now() + self.limits.drain_timeout
        self._fire_waiters()

    # -- what the exchange calls -------------------------------------------------------------------

    def keeps_alive(self, exchange: HTTP1Exchange) -> bool:
        """Whether another request may follow this one."""
        if not exchange.keep_alive or self._owner.no_keep_alive or self._owner.stopping:
            return False
        if not exchange.read_done:
            # An early answer: only a body that is known to be short is worth reading to its end.
            if exchange._awaits_continue or exchange.head.body_length > self.limits.drain_size:
                return False
            return exchange.head.body_length != CHUNKED
        return not (self._peer_shut and not self._buffer)

    def response_done(self, exchange: HTTP1Exchange) -> None:
        """Go on behind a complete response."""
        state = self._state
        if exchange is not self._exchange or state >= LINGER:
            return
        self._holding = False
        if exchange.read_done or state == END or not exchange.head.body_length:
            exchange.read_done = True
            self._next_request(exchange)
        elif not exchange.keep_alive:
            self._linger()
        else:
            if state != BODY:
                self._remaining = exchange.head.body_length
            self._state = DRAIN
            self._drained = 0
            self.deadline = self._deadlines.now() + self.limits.drain_timeout
            self._process_soon()

    def body_timeout_changed(self, exchange: HTTP1Exchange) -> None:
        """Apply a new ``body_timeout`` to the body that is being read."""
        if exchange is self._exchange and self._state == BODY:
            self._set_body_deadline(exchange)

    # -- time --------------------------------------------------------------------------------------

    def deadline_passed(self) -> None:
        """Act on a time-out; called by :class:`~cycloneish.http.deadlines.Deadlines`."""
        now = self._deadlines.now()
        state = self._state
        if state >= LINGER:
            # A slow peer may take its time for the last answer, as long as it takes some of it.
            self.deadline = now + self.limits.drain_timeout
            if not unsent(self.transport):
                hang_up(self.transport)
            elif self._is_stalled(now):
                self.abort()
        elif self._write_paused and self._is_stalled(now):
            self.abort()
        elif state in (ACCEPT, BODY, END) and self._exchange is not None:
            self._set_body_deadline(self._exchange)
            if self.deadline <= now:
                gen_log.info("Timeout reading body from %s", self.context)
                self._refuse(HTTPInputError("Timeout reading body", status=408), log=False)
            elif self._write_paused:
                self.deadline = min(self.deadline, self._stalled_since + self.limits.write_timeout)
        elif self._write_paused:
            self.deadline = self._stalled_since + self.limits.write_timeout
        elif state == HEAD:
            if self._scanned:
                self._refuse(HTTPInputError("Timeout reading headers", status=408))
            else:
                self._close()
        elif state == ANSWER:
            self.deadline = NEVER
        else:
            self.abort()

    def _set_idle_deadline(self) -> None:
        self.deadline = self._deadlines.now() + self.limits.idle_connection_timeout

    def _set_body_deadline(self, exchange: HTTP1Exchange) -> None:
        timeout = exchange.body_timeout if exchange.body_timeout is not None else self.limits.body_timeout
        if self._holding or not exchange.head.body_length:
            # The application takes its time; the peer is not to blame.
            self.deadline = NEVER
        elif timeout is not None:
            self.deadline = self._body_began + timeout
        else:
            if self._received != self._seen:
                self._seen, self._seen_since = self._received, self._deadlines.now()
            # What came fast does not buy a long silence.
            pace = self._body_began + self._received / self.limits.body_min_rate
            self.deadline = min(pace, self._seen_since) + self.limits.body_grace

    # -- reading -----------------------------------------------------------------------------------

    def _process(self) -> None:
        """Read what the buffer has, until more bytes, a response or a Deferred must be waited for."""
        self._busy = True
        turns = self.limits.pipeline_burst
        try:
            while True:
                state = self._state
                if state == HEAD:
                    # A peer that does not read its answers gets no more of them.
                    if not self._buffer or self._write_paused or not self._read_head():
                        break
                elif state == ANSWER:
                    break
                elif state in (ACCEPT, BODY, END):
                    if self._holding:
                        break
                    if state == ACCEPT:
                        self._accept()
                    elif state == END:
                        self._end()
                    elif not self._read_body():
                        break
                elif state == DRAIN:
                    if not self._drain():
                        break
                else:
                    if state == LINGER:
                        self._count_drained(len(self._buffer))
                    self._buffer = b""
                    break
                turns -= 1
                if not turns:
                    self._process_soon()
                    break
        except HTTPInputError as error:
            if self._exchange is not None:
                self._refuse(error)
            else:  # behind a complete answer, which must not be followed by another
                self._crash()
        except Exception:
            self._crash()
        finally:
            self._busy = False
        self._adjust_reading()
        if self._peer_shut:
            self._go_on_without_peer()

    def _process_soon(self) -> None:
        if self._scheduled is None:
            self._scheduled = self._owner.reactor.callLater(0, self._process_now)

    def _process_now(self) -> None:
        self._scheduled = None
        if self._busy:
            self._process_soon()
        elif self._state not in (DETACHED, CLOSED) and not self._writer.broken:
            self._process()

    def _adjust_reading(self) -> None:
        """Read from the transport only while there is use for more bytes."""
        state = self._state
        if state >= LINGER:
            wanted = state == LINGER
        else:
            # One read ahead even while nothing is done with it: only a read tells that the peer has left.
            wanted = not self._buffer or not (
                self._holding
                or self._write_paused
                or self._scheduled is not None
                or (state != HEAD and state != BODY)
            )
        if wanted != self._reading and state < DETACHED and not self._peer_shut:
            self._reading = wanted
            transport: Any = self.transport
            if wanted:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    def _read_head(self) -> bool:
        """Read a request line and header fields; False when they are not complete."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # RFC 9112 section 2.2: ignored in front of a request
            self._buffer = buffer = buffer[_EMPTY_LINES.match(buffer).end() :]  # type: ignore[union-attr]
            self._scanned = 0
        try:
            end = buffer.find(b"\r\n\r\n", self._scanned)
            if end < 0:
                if buffer in (b"", b"\r"):  # empty lines do not begin a request, nor its time
                    return False
                check_partial_head(buffer, self.limits, self._scanned)
                if not self._scanned:
                    self.deadline = self._deadlines.now() + self.limits.header_timeout
                self._scanned = max(1, len(buffer) - 3)
                return False
            if end > self.limits.max_header_size:
                check_partial_head(buffer[: end + 4], self.limits)
            head = parse_request_head(buffer[:end], self.limits)
        except HTTPInputError as error:
            self._refuse(error)
            return False
        self._scanned = 0
        self._buffer = buffer[end + 4 :]
        exchange = self._exchange = HTTP1Exchange(self, head)
        exchange.delegate = self._owner.start_request(self, exchange)
        if not head.body_length:
            # The usual request: nothing to wait for, and no deadline to set.
            result = exchange.delegate.headers_received(head.start_line, head.headers)
            if result is None and self._exchange is exchange and self._state == HEAD:
                self._end()
                return True
        else:
            exchange._awaits_continue = "Expect" in head.headers
            result = exchange.delegate.headers_received(head.start_line, head.headers)
        if self._exchange is exchange and self._state == HEAD:
            self._state = ACCEPT
            self.deadline = NEVER
        self._hold(exchange, result)
        return True

    def _accept(self) -> None:
        """Prepare for the body of a request whose head the delegate has taken."""
        exchange = self._current()
        length = exchange.head.body_length
        if length > exchange.max_body_size:
            raise HTTPInputError("Content-Length too long", status=413)
        if length == 0:
            self._state = END
            return
        if exchange._awaits_continue:
            exchange._awaits_continue = False
            if exchange.head.headers["Expect"].lower() != "100-continue":
                raise HTTPInputError("Unknown Expect header", status=417)
            if exchange.head.start_line.version == "HTTP/1.1" and not self._buffer and not exchange.started:
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._state = BODY
        self._received, self._seen = 0, -1
        self._body_began = self._deadlines.now()
        self._reader = ChunkedReader(self.limits) if length == CHUNKED else None
        self._remaining = length
        if length == CHUNKED or length > len(self._buffer):
            self._set_body_deadline(exchange)

    def _read_body(self) -> bool:
        """Read a piece of the body; False when there is none."""
        exchange = self._current()
        piece = self._next_piece(self.limits.chunk_size)
        self._received += len(piece)
        reader = self._reader
        # What a chunk announces counts before it comes, as a Content-Length does.
        if reader is not None and self._received + reader.announced > exchange.max_body_size:
            raise HTTPInputError("chunked body too large", status=413)
        if not self._body_complete() and not piece:
            return False
        if self._body_complete():
            self._state = END
        if piece:
            self._hold(exchange, exchange.delegate.data_received(piece))
        return True

    def _next_piece(self, size: int) -> bytes:
        """Take at most *size* bytes of body out of the buffer."""
        buffer = self._buffer
        if self._reader is not None:
            piece = self._reader.read(buffer, size)
            self._buffer = self._reader.rest if self._reader.complete else b""
            return piece
        size = min(size, self._remaining)
        if len(buffer) <= size:
            self._buffer = b""
            self._remaining -= len(buffer)
            return buffer
        self._buffer = buffer[size:]
        self._remaining -= size
        return buffer[:size]

    def _body_complete(self) -> bool:
        return self._reader.complete if self._reader is not None else not self._remaining

    def _end(self) -> None:
        """The request is complete: let it be answered."""
        exchange = self._current()
        if self._reader is not None:
            exchange.trailers = self._reader.trailers
            self._reader = None
        self._state = ANSWER
        self.deadline = NEVER
        exchange.read_done = True
        exchange.delegate.finish()

    def _hold(self, exchange: HTTP1Exchange, result: Awaitable[Any] | None) -> None:
        """Read on when *result*, which the delegate gave back, has fired."""
        if result is None or not is_awaitable(result):
            return
        if exchange is self._exchange:
            self._holding = True
            self._held_since = self._deadlines.now()
        drive(result).addCallbacks(self._release, self._hold_failed, (exchange,), {}, (exchange,))

    def _release(self, _: object, exchange: HTTP1Exchange) -> None:
        if exchange is self._exchange and self._holding:
            self._holding = False
            if self._state == BODY:
                self._body_began += self._deadlines.now() - self._held_since
                self._seen = -1
                self._set_body_deadline(exchange)
            if not self._busy:
                self._process()

    def _hold_failed(self, failure: Failure, exchange: HTTP1Exchange) -> None:
        if exchange is self._exchange and self._holding:
            self._holding = False
            if isinstance(failure.value, HTTPInputError):
                self._refuse(failure.value)
            else:
                self._crash(failure)
        elif not isinstance(failure.value, (HTTPInputError, CancelledError, StreamClosedError)):
            self._log_crash(failure)

    def _current(self) -> HTTP1Exchange:
        exchange = self._exchange
        if exchange is None:
            raise RuntimeError("no request is being read")
        return exchange

    # -- behind a response -------------------------------------------------------------------------

    def _next_request(self, exchange: HTTP1Exchange) -> None:
        self._exchange = None
        if not exchange.keep_alive:
            self._close()
            return
        self._state = HEAD
        self.deadline = self._deadlines.now() + self.limits.idle_connection_timeout
        if self._busy:
            return
        if self._buffer:
            # Not from here: the handler that has just finished is still on the stack.
            self._process_soon()
        elif self._peer_shut:
            self._close()
        elif not self._reading:
            self._adjust_reading()

    def _drain(self) -> bool:
        """Throw away what there is of a body behind an early answer; False while it is not complete."""
        before = len(self._buffer)
        self._next_piece(before)
        if not self._count_drained(before - len(self._buffer)) and self._body_complete():
            exchange = self._current()
            exchange.read_done = True
            self._next_request(exchange)
            return True
        return False

    def _refuse(self, error: HTTPInputError, *, log: bool = True) -> None:
        """Answer what is not acceptable HTTP, and close."""
        if self._state >= LINGER:
            return
        if log:
            # What is only too large is called what Tornado calls it, as people watch for these lines.
            kind = "Unsatisfiable read" if error.status in (414, 431) else "Malformed HTTP message"
            gen_log.info("%s from %s: %s", kind, self.context, safe_log_text(str(error)))
        exchange = self._exchange
        if exchange is None or not exchange.started:
            status = tornado_status(error.status) if self._owner.tornado_statuses else error.status
            if status is not None:
                self.send(error_response(status))
        self._linger()
        self._abandon(exchange)

    def _crash(self, failure: Failure | None = None) -> None:
        """Log an error that the application did not handle itself, and close, as Tornado does."""
        self._log_crash(failure if failure is not None else Failure())
        self.close()

    def _log_crash(self, failure: Failure) -> None:
        app_log.error("Uncaught exception", exc_info=failure.value)
