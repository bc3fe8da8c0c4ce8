"""What a server connection is, whatever is read from it: its peer, back-pressure, and every way to end.

The base of :class:`~cycloneish.http.http1.HTTP1ServerConnection`, which reads the requests.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from cycloneish.http.deadlines import NEVER
from cycloneish.http.exchange import ConnectionContext, ConnectionOwner, HTTP1Exchange
from cycloneish.http.response import WriteDeferred
from cycloneish.http.states import ACCEPT, ANSWER, CLOSED, DETACHED, HEAD, LINGER, State
from cycloneish.http.transport import Writer, can_half_close, is_tcp_server, unsent, writer_for
from cycloneish.log import gen_log

__all__ = ["ServerConnection"]


class ServerConnection(Protocol):
    """One connection, from the transport's side.

    :param owner: the server.
    """

    context: ConnectionContext
    _writer: Writer
    #: Writes bytes of the current response.
    send: Callable[[bytes], None]
    send_pieces: Callable[[list[bytes]], None]
    _state: State = HEAD
    _exchange: HTTP1Exchange | None = None
    #: What has arrived and is not read yet.
    _buffer = b""
    #: Bytes thrown away behind the last answer.
    _drained = 0
    #: Requests are being read, further down on the stack.
    _busy = False
    #: The delegate's Deferred for the head or a piece of the body has not fired.
    _holding = False
    _reading = True
    _scheduled: Any = None
    _peer_shut = False
    _write_paused = False
    #: Since when the peer has taken nothing of a full send buffer, and what was in it then.
    _stalled_since = 0.0
    _unsent = 0
    _lost = False
    _successor: Any = None

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self.limits = owner.limits
        self._deadlines = owner.deadlines
        self.deadline = NEVER
        self._waiters: list[WriteDeferred] = []

    # -- what Twisted calls ------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.context = self._owner.make_context(transport)
        try:
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # a Unix socket, a transport in memory, a peer that left
            pass
        if is_tcp_server(transport) and (readers := self._owner.readers) is not None:
            readers.adopt(transport)
        transport.registerProducer(self, True)
        self._writer = writer_for(transport, self._owner.outbox)
        self.send = self._writer.write
        self.send_pieces = self._writer.write_pieces
        self.deadline = self._deadlines.now() + self.limits.idle_connection_timeout
        self._deadlines.add(self)

    def writeConnectionLost(self) -> None:
        if self._state == DETACHED:
            self._detached_half_close("writeConnectionLost")
        elif self._state == LINGER:
            # Everything has been sent: from now on it is the peer's turn.
            self.deadline = self._deadlines.now() + self.limits.drain_timeout

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        detached = self._state == DETACHED
        if reason.type is not None and reason.type.__module__.startswith("OpenSSL."):
            gen_log.warning("SSL Error on connection from %s: %s", self.context, reason.value)
        self._state = CLOSED
        self._lost = True
        self._deadlines.remove(self)
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        if detached:
            self._successor.connectionLost(reason)
        self._buffer = b""
        self._abandon(self._exchange)
        # After that, so that a handler which waits for a write knows already why it fails.
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.lose()
        self._owner.connection_lost(self)

    def pauseProducing(self) -> None:
        """The transport's buffer is full; called again for each write that makes it fuller."""
        if not self._write_paused:
            self._write_paused = True
            self._watch_stall()
            self.deadline = min(self.deadline, self._stalled_since + self.limits.write_timeout)

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`connectionLost` follows."""

    # -- writing -----------------------------------------------------------------------------------

    def written(self) -> WriteDeferred:
        """A Deferred for what has been sent so far."""
        if not self._lost and not self._write_paused:
            return WriteDeferred.fired()
        deferred = WriteDeferred()
        if self._lost:
            deferred.lose()
        else:
            self._waiters.append(deferred)
        return deferred

    def _fire_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _watch_stall(self) -> None:
        self._stalled_since = self._deadlines.now()
        self._unsent = unsent(self.transport)

    def _is_stalled(self, now: float) -> bool:
        """Whether the peer has taken nothing of what waits for it for the time of ``write_timeout``."""
        if unsent(self.transport) < self._unsent:
            self._watch_stall()
        return now >= self._stalled_since + self.limits.write_timeout

    # -- ends --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection when what was written has been sent; what is written later is dropped.

        Tornado: ``IOStream.close``.
        """
        if self._state == DETACHED:
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif self._state < LINGER:
            exchange = self._exchange
            self._buffer = b""
            self._close()
            self._abandon(exchange)

    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._state == CLOSED

    def abort(self) -> None:
        """Close the connection at once and drop what has not been sent."""
        self.deadline = NEVER
        if self._state != DETACHED:
            self._state = CLOSED
            self._buffer = b""
        self.transport.abortConnection()  # type: ignore[union-attr]
        self._abandon(self._exchange)

    def shut_down(self) -> None:
        """Close as soon as the request in flight is answered; an idle connection closes at once.

        So does one whose peer has shut its side: most such peers are gone, and none will ask again. Another
        protocol that has taken the connection over is asked to ``shut_down``, if it can.
        """
        if self._state == DETACHED:
            shut_down = getattr(self._successor, "shut_down", None)
            if shut_down is not None:
                shut_down()
        elif self._peer_shut:
            self.abort()
        elif self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._state == HEAD:
            turn_comes = self._busy or self._write_paused or self._scheduled is not None
            if not (self._buffer and turn_comes):
                self._close()

    def _linger(self) -> None:
        """Shut our side and let the peer read the answer before the connection closes.

        Closing a socket that has unread bytes resets it, and the reset may overtake the answer.
        """
        transport: Any = self.transport
        self._buffer = b""
        if self._peer_shut or not can_half_close(transport):
            self._close()
            return
        self._state = LINGER
        self._holding = False
        self._drained = 0
        self._let_go()
        transport.loseWriteConnection()
        if not self._busy:
            self._adjust_reading()

    def _close(self) -> None:
        """Close when what was written has been sent."""
        if self._buffer and self._state not in (LINGER, CLOSED) and not self._peer_shut:
            self._linger()
            return
        lingered = self._state == LINGER
        self._state = CLOSED
        transport: Any = self.transport
        if not lingered:
            self._let_go()
        if not self._reading:
            # A TLS peer says that it closes too, and that has to be read.
            self._reading = True
            transport.resumeProducing()
        transport.loseConnection()

    def _let_go(self) -> None:
        """Leave the rest of what was written to the transport, and watch that the peer takes it."""
        self.deadline = self._deadlines.now() + self.limits.drain_timeout
        self._writer.flush()
        self._watch_stall()
        self.transport.unregisterProducer()  # type: ignore[union-attr]
        if self._exchange is None or self._exchange.finished:
            self._exchange = None
            self._fire_waiters()

    def _abandon(self, exchange: HTTP1Exchange | None) -> None:
        """Tell the application of *exchange* that it can no longer be answered, if it was not."""
        self._exchange = None
        if exchange is not None and not exchange.finished:
            exchange.finished = True
            # Whoever waits for a write from now on waits for the end of the connection.
            self._write_paused = True
            exchange.peer_left()

    def _count_drained(self, size: int) -> bool:
        """Count bytes that were thrown away; True when that was too much and the connection closes."""
        self._drained += size
        if self._drained > self.limits.drain_size:
            self._close()
            return True
        return False

    # -- handing over ------------------------------------------------------------------------------

    def detach(self, exchange: HTTP1Exchange, successor: IProtocol | None) -> Any:
        """Hand the transport to *successor*."""
        if exchange is not self._exchange or self._state not in (ANSWER, ACCEPT, HEAD):
            raise RuntimeError("Only a request that has been read and not answered can be detached")
        if exchange.head.body_length and not exchange.read_done:
            raise RuntimeError("The body of this request has not been read, so it cannot be detached yet")
        transport: Any = self.transport
        exchange.finished = True
        exchange.read_done = True
        self._exchange = None
        self._state = DETACHED
        self._deadlines.remove(self)
        self._successor = successor if successor is not None else Protocol()
        self._writer.flush()
        transport.unregisterProducer()
        self._fire_waiters()
        rest, self._buffer = self._buffer, b""
        if not self._reading:
            self._reading = True
            transport.resumeProducing()
        self._successor.makeConnection(transport)
        if rest:
            self._successor.dataReceived(rest)
        if self._peer_shut:
            self._detached_half_close("readConnectionLost")
        return transport

    def _detached_half_close(self, method: str) -> None:
        successor = IHalfCloseableProtocol(self._successor, None)
        if successor is not None:
            getattr(successor, method)()
        elif method == "readConnectionLost":
            self.transport.loseConnection()

    # -- what reads the requests defines -------------------------------------------------------------

    @abstractmethod
    def deadline_passed(self) -> None:
        """Act on a time-out; called by :class:`~cycloneish.http.deadlines.Deadlines`."""

    @abstractmethod
    def _adjust_reading(self) -> None:
        """Read from the transport only while there is use for more bytes."""
