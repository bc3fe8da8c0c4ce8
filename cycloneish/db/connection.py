"""One PostgreSQL connection on the reactor: statements in a row, cancelling, loss, notifications.

:class:`Connection` is txpostgres' connection with the parts changed that a pool cannot live with:
its idle reader raises into the reactor when the server goes away, cancelling blocks (libpq opens a
second connection and waits for it), and a cancelled statement leaves the caller to find out when the
connection can be used again.  It also polls in a way of its own, as most of the time of a small query
goes into that: the socket stays registered with the reactor from the first to the last statement, no
poll is made before something has arrived, and the answer is handed on in the same turn.

:mod:`cycloneish.db.opening` makes connections; the pool (:mod:`cycloneish.db.postgres`) and the
notification listener (:mod:`cycloneish.db.listen`) use them.

The seam for what is built on top (such as the SQLAlchemy dialect): ``Pool._lease()`` fires with a
connection that is the caller's until ``Pool._release(connection)``.  ``connection.run(sql, parameters,
collect)`` sends a statement with psycopg2's placeholders and fires with ``collect(cursor)``, where the
cursor is psycopg2's own (``description``, ``fetchall()``, ``rowcount``, ``statusmessage``); cancelling
that Deferred cancels on the server.  ``lost``, ``busy``, ``in_transaction`` and ``abort()`` tell and end
its state.
"""

from __future__ import annotations

import logging
import math
import os
import select
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
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

__all__ = ["CancelRequests", "Connection", "Parameters", "Statement"]

log = logging.getLogger("cycloneish.db")

#: What a statement may be given: a sequence for ``%s``, a mapping for ``%(name)s``, None for neither.
Parameters = tuple[Any, ...] | list[Any] | dict[str, Any] | None

#: Seconds that the server has to end a statement after it was told to cancel it.
CANCEL_TIMEOUT = 5.0
# Seconds until a cancel request is repeated for a statement that still runs.
_CANCEL_AGAIN = 0.1

# Bytes of a statement that surely go out at once, as nothing else is on its way.
_SMALL = 4096
_OK = psycopg2.extensions.POLL_OK
_WRITE = psycopg2.extensions.POLL_WRITE

# Codes after which the server closes the connection: shutdown, crash of another backend, not ready,
# idle time-outs; and the whole of class 08.
_FATAL_CODES = {"57P01", "57P02", "57P03", "57P05", "25P03"}


def _to_bytes(value: Any, cursor: Any) -> bytes | None:
    return None if value is None else bytes(psycopg2.BINARY(value, cursor))


_BYTEA_OID = 17
_BYTES = psycopg2.extensions.new_type((_BYTEA_OID,), "BYTES", _to_bytes)
# uuid.UUID both ways; this registers adapters in the process, as psycopg2 does for the other types.
psycopg2.extras.register_uuid()


class CancelRequests(Protocol):
    """What asks the server to end a statement (:class:`cycloneish.db.canceller.Canceller`)."""

    def cancel(self, pid: int) -> Deferred[None]:
        """Ask the server to end what backend *pid* does."""


class Statement(Deferred[Any]):
    """One statement on its way: waiting, running, or cancelled and waiting to be over.

    It is the Deferred that its caller gets; one object for both makes small queries cheaper.

    :param owner: told by ``withdraw(statement)`` when it is cancelled: the pool while it waits for a
        connection, then the connection.
    """

    def __init__(
        self,
        owner: Any,
        sql: str | bytes,
        parameters: Parameters,
        collect: Callable[[Any], Any],
        limit: float | None,
    ) -> None:
        super().__init__(_withdraw)
        self.owner = owner
        self.sql = sql
        self.parameters = parameters
        self.collect = collect
        self.limit = limit
        self.cursor: Any = None
        self.timer: Any = None
        #: Whether somebody still waits for the result.
        self.wanted = True
        #: When a call gives up waiting for a connection, in reactor seconds; the time it began to wait.
        self.deadline = 0.0
        self.since = 0.0

    def start(self, connection: Connection) -> None:
        """Run on *connection*, which the pool found."""
        connection.submit(self)


def _withdraw(statement: Any) -> None:
    statement.owner.withdraw(statement)


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


class Connection(txpostgres.Connection):  # type: ignore[misc]
    """A connection that runs one statement after the other and says when it is idle or lost.

    :param reactor: the reactor whose readers and timers are used.
    :ivar on_idle: called with the connection when the last queued statement is over.
    :ivar on_lost: called once with the connection and the error when it cannot be used any more.
    :ivar on_notify: called with the channel and the payload of every notification.
    :ivar canceller: sends cancel requests; without one a cancelled statement costs the connection.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.on_idle: Callable[[Connection], None] | None = None
        self.on_lost: Callable[[Connection, Exception], None] | None = None
        self.on_notify: Callable[[str, str], None] | None = None
        self.canceller: CancelRequests | None = None
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
        self._running: Statement | None = None
        self._waiting: deque[Statement] = deque()
        self._cancelling = False
        self._cancel_timer: Any = None
        self._resend_timer: Any = None
        self._readable: select.poll | None = None
        self._socket_wait: _SocketWait | None = None
        self._descriptor = -1

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
            if state == _OK:
                self._opened(number)
                result.callback(self)
                return
            wait = self._socket_wait = _SocketWait(self.reactor, number, step)
            if state == _WRITE:
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
        # libpq may close its socket within poll(). The reactor gets a number of our own for the same
        # socket, so that it never holds one that somebody else was given meanwhile.
        self._descriptor = os.dup(number)
        self._readable = select.poll()
        self._readable.register(self._descriptor, select.POLLIN)
        self.reactor.addReader(self)

    def fileno(self) -> int:
        """The number that the reactor watches; -1 before and after."""
        return self._descriptor

    # -- statements ------------------------------------------------------------------------------

    def run(
        self,
        sql: str | bytes,
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
        statement = Statement(self, sql, parameters, collect, timeout)
        self.submit(statement)
        return statement

    def submit(self, statement: Statement) -> None:
        """As :meth:`run`, for a statement made before there was a connection for it."""
        if self.lost is not None:
            statement.errback(self.lost)
            return
        statement.owner = self
        timeout = statement.limit
        if timeout is not None and timeout != math.inf:
            statement.timer = self.reactor.callLater(timeout, self._timed_out, statement, timeout)
        if self._running is None:
            self._send(statement)
        else:
            self._waiting.append(statement)

    @property
    def busy(self) -> bool:
        """Whether a statement is running, or a cancelled one is not over yet."""
        return self._running is not None

    @property
    def in_transaction(self) -> bool:
        """Whether the server has a transaction open, failed or not."""
        return bool(self._connection.get_transaction_status())

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

    def bind(self, sql: str, parameters: Parameters) -> bytes:
        """*sql* with the values in it, each quoted by the driver; for statements put together of many."""
        bound: bytes = self._connection.cursor().mogrify(sql, parameters)
        return bound

    def expire(self) -> None:
        """End the running statement because its time is over (the pool's sweep)."""
        statement = self._running
        self.deadline = 0.0
        if statement is not None and statement.wanted:
            self._timed_out(statement, None)

    def abort(self, reason: str = "the connection was closed") -> None:
        """Close the connection now; what is under way fails with :exc:`ConnectionLost`."""
        self._lose(ConnectionLost(reason))

    def _send(self, statement: Statement) -> None:
        self._running = statement
        if self.query_timeout is not None and statement.limit is None:
            self.deadline = self.reactor.seconds() + self.query_timeout
        raw = self._connection
        if raw is None or raw.closed:
            self._lose(ConnectionLost("the connection to PostgreSQL is closed"))
            return
        try:
            cursor = statement.cursor = raw.cursor()
            cursor.execute(statement.sql, statement.parameters)
        except Exception as error:
            # In a turn of its own: a long queue of statements that fail here would be a deep recursion.
            self.reactor.callLater(0, self._not_sent, statement, error)
            return
        if len(cursor.query) > _SMALL:
            # May not have gone out in one piece.
            self.doRead()

    def _not_sent(self, statement: Statement, error: Exception) -> None:
        if self._running is statement:
            self._failed(statement, error)

    def _done(self, statement: Statement) -> None:
        wanted = self._finish(statement)
        cursor, statement.cursor = statement.cursor, None
        result: Any = None
        failed: Exception | None = None
        if wanted:
            try:
                result = statement.collect(cursor)
            except Exception as error:
                failed = error
        self._next()
        if failed is not None:
            statement.errback(failed)
        elif wanted:
            statement.callback(result)

    def _failed(self, statement: Statement, error: Exception) -> None:
        wanted = self._finish(statement)
        statement.cursor = None
        if self.lost is None and self._is_fatal(error):
            lost = ConnectionLost(f"the connection to PostgreSQL was lost: {_first_line(error)}")
            lost.__cause__ = error
            self._lose(lost)
        if self.lost is not None:
            if wanted:
                statement.errback(self.lost)
            return
        self._next()
        if wanted:
            statement.errback(error)

    def _finish(self, statement: Statement) -> bool:
        """Whether somebody still waits for *statement*; its timer is stopped."""
        wanted, statement.wanted = statement.wanted, False
        if statement.timer is not None:
            if statement.timer.active():
                statement.timer.cancel()
            statement.timer = None
        if self._running is statement:
            self._running = None
        self.deadline = 0.0
        return wanted

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

    def withdraw(self, statement: Statement) -> None:
        """The caller cancelled *statement*; Twisted fails it after this returns."""
        self._give_up(statement)

    def _timed_out(self, statement: Statement, timeout: float | None) -> None:
        if self._give_up(statement):
            took = "too long" if timeout is None else f"more than {timeout:g} s"
            statement.errback(
                QueryTimeout(f"the statement took {took} and was cancelled: {_shown(statement.sql)}")
            )

    def _give_up(self, statement: Statement) -> bool:
        wanted, statement.wanted = statement.wanted, False
        if statement.timer is not None:
            if statement.timer.active():
                statement.timer.cancel()
            statement.timer = None
        if statement is self._running:
            if not self._cancelling:
                self._request_cancel()
        elif statement in self._waiting:
            self._waiting.remove(statement)
        return wanted

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
            if self._finish(statement):
                statement.errback(error)
        if self.on_lost is not None:
            self.on_lost(self, error)

    def close(self) -> None:
        """Close the socket.  Use :meth:`abort` to fail what is under way as well."""
        if self.lost is None:
            self.lost = ConnectionLost("the connection is closed")
        self._readable = None
        raw = self._connection
        if raw is None:
            return
        if self._socket_wait is not None:
            self._socket_wait.stop()
            self._socket_wait = None
        if self._descriptor >= 0:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            os.close(self._descriptor)
            self._descriptor = -1
        # After a loss psycopg2 counts the connection as closed but keeps the socket.
        raw.close()

    # -- what the reactor calls ------------------------------------------------------------------

    def doRead(self) -> None:
        """Something arrived: part of an answer, a notification, or the end of the connection."""
        raw = self._connection
        if raw is None or self._descriptor < 0:
            return
        try:
            state = raw.poll()
        except Exception as error:
            if self._running is not None:
                self._failed(self._running, error)
                return
            lost = ConnectionLost(f"the connection to PostgreSQL was lost: {_first_line(error)}")
            lost.__cause__ = error
            self._lose(lost)
            return
        if state == _OK:
            statement = self._running
            if statement is not None:
                self._done(statement)
            elif raw.notices:
                last_words = [notice.strip() for notice in raw.notices if notice.startswith("FATAL")]
                del raw.notices[:]
                if last_words:
                    # The end of the connection follows in a moment; better not to be given out until then.
                    self._lose(ConnectionLost(f"the connection to PostgreSQL was lost: {last_words[0]}"))
                    return
            if raw.notifies:
                self.checkForNotifies()
        elif state == _WRITE:
            self.reactor.addWriter(self)

    def doWrite(self) -> None:
        """There is room for more of a long statement."""
        self.reactor.removeWriter(self)
        self.doRead()

    def connectionLost(self, reason: Any) -> None:
        """The reactor saw the socket go, and has forgotten it."""
        if self._descriptor >= 0:
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


def _shown(sql: str | bytes) -> str:
    """The beginning of a statement, for an error; not of one that has values in it."""
    return sql[:200] if isinstance(sql, str) else f"a batch of {len(sql):,} bytes"


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
