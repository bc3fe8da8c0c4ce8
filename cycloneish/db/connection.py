"""One PostgreSQL connection on the reactor: statements in a row, cancelling, loss, notifications.

:class:`Connection` is txpostgres' connection with the parts changed that a pool cannot live with:
its idle reader raises into the reactor when the server goes away, cancelling blocks (libpq opens a
second connection and waits for it), and a cancelled statement leaves the caller to find out when the
connection can be used again.  :class:`Canceller` sends the cancel requests of a whole pool.

:mod:`cycloneish.db.opening` makes connections; the pool (:mod:`cycloneish.db.postgres`) and the notification
listener (:mod:`cycloneish.db.listen`) use them.
"""

from __future__ import annotations

import logging
import math
import select
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import ConnectionLost, MissingDependency, QueryTimeout

try:
    import psycopg2
    import psycopg2.extensions
    import psycopg2.extras
except ImportError as error:
    raise MissingDependency("psycopg2", "postgres") from error
try:
    from txpostgres import txpostgres
except ImportError as error:
    raise MissingDependency("txpostgres", "postgres") from error

__all__ = ["Canceller", "Connection", "Parameters"]

log = logging.getLogger("cycloneish.db")

#: What a statement may be given: a sequence for ``%s``, a mapping for ``%(name)s``, None for neither.
Parameters = tuple[Any, ...] | list[Any] | dict[str, Any] | None

#: Seconds that the server has to end a statement after it was told to cancel it.
CANCEL_TIMEOUT = 5.0
# Seconds until a cancel request is repeated for a statement that still runs.
_CANCEL_AGAIN = 0.1
#: Seconds after which the connection that sends cancel requests is closed when it has nothing to do.
CANCELLER_IDLE = 30.0

# Codes after which the server closes the connection: shutdown, crash of another backend, not ready,
# idle time-outs; and the whole of class 08.
_FATAL_CODES = {"57P01", "57P02", "57P03", "57P05", "25P03"}


def _to_bytes(value: Any, cursor: Any) -> bytes | None:
    return None if value is None else bytes(psycopg2.BINARY(value, cursor))


_BYTEA_OID = 17
_BYTES = psycopg2.extensions.new_type((_BYTEA_OID,), "BYTES", _to_bytes)
# uuid.UUID both ways; this registers adapters in the process, as psycopg2 does for the other types.
psycopg2.extras.register_uuid()


class _Statement:
    """One statement on its way: queued, running, or cancelled and waiting to be over."""

    __slots__ = ("collect", "deferred", "limit", "parameters", "sql", "timer")

    def __init__(
        self, sql: str, parameters: Parameters, collect: Callable[[Any], Any], limit: float | None
    ) -> None:
        self.sql = sql
        self.parameters = parameters
        self.collect = collect
        self.limit = limit
        self.deferred: Deferred[Any] | None = None
        self.timer: Any = None


@implementer(IReadWriteDescriptor)
class _SocketWait:
    """Waits once until a socket can be read or written.

    libpq changes sockets while it connects (the next address, an attempt without TLS).  txpostgres
    leaves the old number registered with the reactor, and the connection that gets the number next
    hangs; this forgets the number before libpq is asked again.
    """

    def __init__(self, reactor: Any, number: int, ready: Callable[[], None]) -> None:
        self._reactor = reactor
        self._number = number
        self._ready = ready

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "postgres"

    def stop(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    def doRead(self) -> None:
        self.stop()
        self._ready()

    doWrite = doRead

    def connectionLost(self, reason: Any) -> None:
        self.doRead()


class _Cursor(txpostgres.Cursor):  # type: ignore[misc]
    """A cursor that reports a cancelled statement as the server does.

    txpostgres makes a ``CancelledError`` of it, which would tell a caller that he cancelled something
    himself where it was the server's ``statement_timeout``.
    """

    def _handleCancellation(self, failure: Failure) -> Failure:
        return failure


class Connection(txpostgres.Connection):  # type: ignore[misc]
    """A connection that runs one statement after the other and says when it is idle or lost.

    :param reactor: the reactor whose readers and timers are used.
    :ivar on_idle: called with the connection when the last queued statement is over.
    :ivar on_lost: called once with the connection and the error when it cannot be used any more.
    :ivar on_notify: called with the channel and the payload of every notification.
    :ivar canceller: sends cancel requests; without one a cancelled statement costs the connection.
    """

    cursorFactory = _Cursor

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.on_idle: Callable[[Connection], None] | None = None
        self.on_lost: Callable[[Connection, Exception], None] | None = None
        self.on_notify: Callable[[str, str], None] | None = None
        self.canceller: Canceller | None = None
        self.lost: Exception | None = None
        self.leased = False
        self.opened_at = 0.0
        self.idle_since = 0.0
        #: Seconds for a statement that brings no time-out of its own; None for no limit.  A timer for
        #: every statement would cost a tenth of a small query, so the pool's sweep looks after these.
        self.query_timeout: float | None = None
        #: When the sweep shall end the running statement, in reactor seconds; 0 for never.
        self.deadline = 0.0
        self.pid = 0
        self._running: _Statement | None = None
        self._waiting: deque[_Statement] = deque()
        self._cancelling = False
        self._cancel_timer: Any = None
        self._resend_timer: Any = None
        self._readable: select.poll | None = None
        self._closing = False
        self._socket_wait: _SocketWait | None = None

    # -- connecting ------------------------------------------------------------------------------

    def connect(self, **settings: Any) -> Deferred[Connection]:
        """Connect with libpq's *settings*; :meth:`close` ends the attempt."""
        result: Deferred[Connection] = Deferred()

        def step() -> None:
            self._socket_wait = None
            if result.called:
                return
            try:
                state = self._connection.poll()
                number = self._connection.fileno()
            except psycopg2.Error:
                result.errback()
                return
            if state == psycopg2.extensions.POLL_OK:
                self.reactor.addReader(self)
                self._opened(number)
                result.callback(self)
                return
            wait = self._socket_wait = _SocketWait(self.reactor, number, step)
            if state == psycopg2.extensions.POLL_WRITE:
                self.reactor.addWriter(wait)
            else:
                self.reactor.addReader(wait)

        try:
            self._connection = psycopg2.connect(async_=True, **settings)
        except psycopg2.Error:
            return fail()
        step()
        return result

    def _opened(self, number: int) -> None:
        """Note what is known once the server has let us in."""
        self.pid = self._connection.info.backend_pid
        self.opened_at = self.reactor.seconds()
        # bytea as bytes, as one would expect, rather than as a memoryview.
        psycopg2.extensions.register_type(_BYTES, self._connection)
        self._readable = select.poll()
        self._readable.register(number, select.POLLIN)

    # -- statements ------------------------------------------------------------------------------

    def run(
        self,
        sql: str,
        parameters: Parameters,
        collect: Callable[[Any], Any],
        timeout: float | None = None,
    ) -> Deferred[Any]:
        """Send *sql* now, or when the statements before it are over.

        :param collect: called with the cursor; what it returns is what the Deferred fires with.
        :param timeout: seconds before the statement is cancelled on the server and the Deferred
            fails with :exc:`QueryTimeout`, the wait for the statements before it included; None for
            :attr:`query_timeout`, ``math.inf`` for no limit.
        :returns: a Deferred.  Cancelling it fails it with ``CancelledError`` at once; the server is
            told, and the connection is not idle before the server has answered.
        """
        if self.lost is not None:
            return fail(self.lost)
        statement = _Statement(sql, parameters, collect, timeout)
        deferred = statement.deferred = Deferred(lambda _: self._cancelled(statement))
        if timeout is not None and timeout != math.inf:
            statement.timer = self.reactor.callLater(timeout, self._timed_out, statement, timeout)
        if self._running is None:
            self._send(statement)
        else:
            self._waiting.append(statement)
        return deferred

    @property
    def busy(self) -> bool:
        """Whether a statement is running, or a cancelled one is not over yet."""
        return self._running is not None

    @property
    def in_transaction(self) -> bool:
        """Whether the server has a transaction open, failed or not."""
        return bool(self._connection.info.transaction_status)

    def alive(self) -> bool:
        """Whether an idle connection is still there, asked of the socket without waiting.

        Reads what has arrived; a server that went away a moment ago is found out here rather than
        by the next statement.
        """
        if self.lost is not None:
            return False
        while self._readable is not None and self._readable.poll(0):
            self.doRead()
        return self.lost is None

    def expire(self) -> None:
        """End the running statement because its time is over (the pool's sweep)."""
        statement = self._running
        self.deadline = 0.0
        if statement is not None and statement.deferred is not None:
            self._timed_out(statement, None)

    def abort(self, reason: str = "the connection was closed") -> None:
        """Close the connection now; what is under way fails with :exc:`ConnectionLost`."""
        self._lose(ConnectionLost(reason))

    def _send(self, statement: _Statement) -> None:
        self._running = statement
        if statement.limit is None and self.query_timeout is not None:
            self.deadline = self.reactor.seconds() + self.query_timeout
        raw = self._connection
        if raw is None or raw.closed:
            self._lose(ConnectionLost("the connection to PostgreSQL is closed"))
            return
        cursor = self.cursor()
        cursor.execute(statement.sql, statement.parameters).addCallbacks(
            self._done, self._failed, callbackArgs=(statement,), errbackArgs=(statement,)
        )

    def _done(self, cursor: Any, statement: _Statement) -> None:
        deferred = self._finish(statement)
        result: Any = None
        failed: Exception | None = None
        if deferred is not None:
            try:
                result = statement.collect(cursor)
            except Exception as error:
                failed = error
        cursor.close()
        self._next()
        if deferred is None:
            return
        if failed is None:
            deferred.callback(result)
        else:
            deferred.errback(failed)

    def _failed(self, failure: Failure, statement: _Statement) -> None:
        deferred = self._finish(statement)
        error = failure.value
        if self.lost is None and self._is_fatal(error):
            lost = ConnectionLost(f"the connection to PostgreSQL was lost: {_first_line(error)}")
            lost.__cause__ = error
            self._lose(lost)
        if self.lost is not None:
            if deferred is not None:
                deferred.errback(self.lost)
            return
        self._next()
        if deferred is not None:
            deferred.errback(failure)

    def _finish(self, statement: _Statement) -> Deferred[Any] | None:
        """The Deferred that still waits for *statement*, if there is one; its timer is stopped."""
        deferred, statement.deferred = statement.deferred, None
        if statement.timer is not None:
            if statement.timer.active():
                statement.timer.cancel()
            statement.timer = None
        if self._running is statement:
            self._running = None
        self.deadline = 0.0
        return deferred

    def _next(self) -> None:
        if self._cancelling or self.lost is not None or self._running is not None:
            # A cancel request still on its way could hit the statement that follows.
            return
        self._stop_cancel_timer()
        if self._waiting:
            self._send(self._waiting.popleft())
        elif self.on_idle is not None:
            self.on_idle(self)

    # -- cancelling ------------------------------------------------------------------------------

    def _cancelled(self, statement: _Statement) -> None:
        """The caller cancelled the Deferred of *statement*; Twisted fails it after this returns."""
        self._give_up(statement)

    def _timed_out(self, statement: _Statement, timeout: float | None) -> None:
        deferred = self._give_up(statement)
        if deferred is not None:
            took = "too long" if timeout is None else f"more than {timeout:g} s"
            deferred.errback(
                QueryTimeout(f"the statement took {took} and was cancelled: {statement.sql[:200]}")
            )

    def _give_up(self, statement: _Statement) -> Deferred[Any] | None:
        deferred, statement.deferred = statement.deferred, None
        if statement.timer is not None:
            if statement.timer.active():
                statement.timer.cancel()
            statement.timer = None
        if statement in self._waiting:
            self._waiting.remove(statement)
        elif statement is self._running and not self._cancelling:
            self._request_cancel()
        return deferred

    def _request_cancel(self) -> None:
        if self.canceller is None:
            self.abort("the statement was cancelled")
            return
        self._cancelling = True
        self._cancel_timer = self.reactor.callLater(
            CANCEL_TIMEOUT, self.abort, "the server did not end a cancelled statement in time"
        )
        self.canceller.cancel(self.pid).addCallbacks(self._cancel_sent, self._cancel_failed)

    def _cancel_sent(self, _: object) -> None:
        self._cancelling = False
        if self._running is not None and self.lost is None:
            # The server may not have begun the statement when the request came, and ignored it.
            self._resend_timer = self.reactor.callLater(_CANCEL_AGAIN, self._resend_cancel)
        self._next()

    def _resend_cancel(self) -> None:
        self._resend_timer = None
        if self._running is not None and self.lost is None and self.canceller is not None:
            self._cancelling = True
            self.canceller.cancel(self.pid).addCallbacks(self._cancel_sent, self._cancel_failed)

    def _cancel_failed(self, failure: Failure) -> None:
        self._cancelling = False
        if self.lost is None:
            self.abort(f"a cancel request could not be sent: {failure.getErrorMessage()}")

    def _stop_cancel_timer(self) -> None:
        timers = (self._cancel_timer, self._resend_timer)
        self._cancel_timer = self._resend_timer = None
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()

    # -- loss ------------------------------------------------------------------------------------

    def _is_fatal(self, error: BaseException | None) -> bool:
        if isinstance(error, CancelledError):
            return False
        if self._connection is None or self._connection.closed:
            return True
        code = getattr(error, "pgcode", None) or ""
        return code in _FATAL_CODES or code.startswith("08")

    def _lose(self, error: Exception) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._stop_cancel_timer()
        running, self._running = self._running, None
        waiting, self._waiting = self._waiting, deque()
        self.close()
        for statement in ([running] if running is not None else []) + list(waiting):
            deferred = self._finish(statement)
            if deferred is not None:
                deferred.errback(error)
        if self.on_lost is not None:
            self.on_lost(self, error)

    def close(self) -> None:
        """Close the socket.  Use :meth:`abort` to fail what is under way as well."""
        self._closing = True
        if self.lost is None:
            self.lost = ConnectionLost("the connection is closed")
        self._readable = None
        raw = self._connection
        if raw is None:
            return
        # A cursor that waits for an answer is a reader of its own.  Left behind, it would keep the
        # file number taken in the reactor, and the next connection to get that number would hang.
        if self._socket_wait is not None:
            self._socket_wait.stop()
            self._socket_wait = None
        for cursor in self._cursors:
            self.reactor.removeReader(cursor)
            self.reactor.removeWriter(cursor)
        super().close()
        # After a loss psycopg2 counts the connection as closed but keeps the socket.
        raw.close()

    # -- what the reactor calls ------------------------------------------------------------------

    def doRead(self) -> None:
        """Something arrived: part of an answer, a notification, or the end of the connection."""
        raw = self._connection
        if raw is None or raw.closed or self._cursors:
            return
        # libpq may close the socket in poll(); the reactor must not know its number any more then.
        self.reactor.removeReader(self)
        try:
            raw.poll()
        except psycopg2.Error as error:
            lost = ConnectionLost(f"the connection to PostgreSQL was lost: {_first_line(error)}")
            lost.__cause__ = error
            self._lose(lost)
            return
        if raw.notices:
            last_words = [notice.strip() for notice in raw.notices if notice.startswith("FATAL")]
            del raw.notices[:]
            if last_words:
                # The end of the connection follows in a moment; better not to be given out until then.
                self._lose(ConnectionLost(f"the connection to PostgreSQL was lost: {last_words[0]}"))
                return
        self.reactor.addReader(self)
        self.checkForNotifies()

    def connectionLost(self, reason: Any) -> None:
        """The reactor saw the socket go."""
        super().connectionLost(reason)
        if not self._closing and self._pollingD is None and not self._cursors:
            self._lose(ConnectionLost("the connection to PostgreSQL was lost"))

    def checkForNotifies(self) -> None:
        """Hand on the notifications that have arrived, in their order, at once."""
        raw = self._connection
        if raw is None or not raw.notifies:
            return
        arrived = raw.notifies[:]
        del raw.notifies[:]
        if self.on_notify is not None:
            for notify in arrived:
                self.on_notify(notify.channel, notify.payload)


class Canceller:
    """Sends cancel requests for a pool, many at a time, over one connection of its own.

    libpq's own cancel call opens a connection and waits for it while Python stands still; with a
    server that does not answer that would stop the reactor for minutes.  ``pg_cancel_backend`` needs
    no more rights than the role has, goes through TLS, and is a statement like any other.

    :param connect: makes the connection; it is opened at the first request and closed after
        :data:`CANCELLER_IDLE` seconds without one.
    """

    def __init__(self, reactor: Any, connect: Callable[[], Deferred[Connection]]) -> None:
        self._reactor = reactor
        self._connect = connect
        self._connection: Connection | None = None
        self._pending: list[tuple[int, Deferred[None]]] = []
        self._working = False
        self._idle_timer: Any = None
        self._closed = False

    def cancel(self, pid: int) -> Deferred[None]:
        """Ask the server to end what backend *pid* does; fires when the request was delivered."""
        deferred: Deferred[None] = Deferred()
        if self._closed:
            return fail(ConnectionLost("the pool is closed"))
        self._pending.append((pid, deferred))
        if not self._working:
            self._work()
        return deferred

    def close(self) -> None:
        """Close the connection; requests not yet sent fail."""
        self._closed = True
        self._stop_idle_timer()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        pending, self._pending = self._pending, []
        for _, deferred in pending:
            deferred.errback(ConnectionLost("the pool is closed"))

    def _work(self) -> None:
        self._working = True
        self._stop_idle_timer()
        if self._connection is not None and self._connection.alive():
            self._send(self._connection)
        else:
            self._connection = None
            self._connect().addCallbacks(self._send, self._failed, errbackArgs=(self._pending,))

    def _send(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        self._connection = connection
        batch, self._pending = self._pending, []
        connection.run(
            "select pg_cancel_backend(pid) from unnest(%s) as pid",
            ([pid for pid, _ in batch],),
            lambda cursor: cursor.fetchall(),
            CANCEL_TIMEOUT,
        ).addCallbacks(self._sent, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))

    def _sent(self, _: object, batch: list[tuple[int, Deferred[None]]]) -> None:
        self._over()
        for _pid, deferred in batch:
            deferred.callback(None)

    def _failed(self, failure: Failure, batch: list[tuple[int, Deferred[None]]]) -> None:
        batch = list(batch)
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._pending = [waiting for waiting in self._pending if waiting not in batch]
        self._over()
        for _pid, deferred in batch:
            if not deferred.called:
                deferred.errback(failure)

    def _over(self) -> None:
        self._working = False
        if self._closed:
            return
        if self._pending:
            self._work()
        else:
            self._idle_timer = self._reactor.callLater(CANCELLER_IDLE, self._drop)

    def _drop(self) -> None:
        self._idle_timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _stop_idle_timer(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
