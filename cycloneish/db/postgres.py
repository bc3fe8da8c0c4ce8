"""A pool of PostgreSQL connections that mends itself, for handlers and services::

    pool = Pool("postgresql://shop@db.example/shop", max_size=20)
    pool.setServiceParent(application)
    …
    price = yield pool.fetch_value("select price from article where id = %s", (7,))
    async with pool.transaction() as tx:
        await tx.execute("update account set balance = balance - %s where id = %s", (price, 1))

Everything returns Deferreds, every Deferred can be cancelled (the server is told), and every wait ends.
Statements and values travel separately: values are bound by the driver and never formatted into SQL.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from ..coroutines import as_deferred
from .batches import Batches
from .canceller import Canceller
from .connection import Connection, Parameters, Statement
from .copying import Copier, CopyIn, CopyOut
from .errors import ConnectError, ConnectionLost, DatabaseError, PoolClosed, PoolTimeout
from .listen import Listener, Subscription
from .opening import connect_settings, open_connection
from .queries import Queries, Savepoint, Transaction, named
from .stats import PoolStats

# The driver's errors that programs tell apart, so that they need not import the driver.
from psycopg2 import Error, IntegrityError  # isort: skip
from psycopg2.errors import (  # isort: skip
    CheckViolation,
    DeadlockDetected,
    ForeignKeyViolation,
    LockNotAvailable,
    NotNullViolation,
    QueryCanceled,
    SerializationFailure,
    UniqueViolation,
)
from psycopg2.extras import Json  # isort: skip

__all__ = [
    "Batches",
    "CheckViolation",
    "CopyIn",
    "CopyOut",
    "DeadlockDetected",
    "Error",
    "ForeignKeyViolation",
    "IntegrityError",
    "Json",
    "LockNotAvailable",
    "NotNullViolation",
    "Parameters",
    "Pool",
    "PoolStats",
    "QueryCanceled",
    "Savepoint",
    "SerializationFailure",
    "Server",
    "Subscription",
    "Transaction",
    "UniqueViolation",
    "named",
]

log = logging.getLogger("cycloneish.db")

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0
_SWEEP_INTERVAL = 1.0
_ISOLATION_LEVELS = ("read committed", "repeatable read", "serializable")


class Server(Protocol):
    """A PostgreSQL server that a pool starts before it connects and stops after its last statement."""

    def start(self) -> Deferred[str]:
        """Make sure that the server runs; fires with its DSN.  Called again after a loss."""

    def stop(self) -> Deferred[None]:
        """Stop the server."""


def _as_error(failure: Failure) -> Exception:
    error = failure.value
    return error if isinstance(error, Exception) else DatabaseError(failure.getErrorMessage())


class _Lease(Deferred[Connection]):
    """A call that waits for a connection of its own; stands in the queue beside statements."""

    def __init__(self, owner: Pool) -> None:
        super().__init__(owner.withdraw)
        self.deadline = 0.0
        self.since = 0.0

    def start(self, connection: Connection) -> None:
        """Here is the connection."""
        connection.leased = True
        self.callback(connection)


class Pool(Service, Queries):
    """Connections to one PostgreSQL database, opened on demand and mended when lost.

    :param dsn: a ``postgresql://`` URI, a libpq ``key=value`` string, or a :class:`Server` that tells
        its DSN when it has started (see :mod:`cycloneish.db.embedded`).
    :param min_size: connections kept open, also when idle.
    :param max_size: connections at most; one more is opened for LISTEN and one to send cancel requests,
        each when first needed.
    :param max_copies: COPY jobs at most; each has a connection and a thread of its own.
    :param acquire_timeout: seconds that a call waits for a connection, reconnecting included, before
        it fails with :exc:`~cycloneish.db.errors.PoolTimeout`.
    :param connect_timeout: seconds for one attempt to connect.
    :param query_timeout: seconds for one statement that brings no time-out itself, to a precision of
        one second; None for no limit.
    :param idle_timeout: seconds after which an idle connection above *min_size* is closed.
    :param max_lifetime: seconds after which a connection is replaced when it is given back.
    :param stop_timeout: seconds that :meth:`stopService` waits for work in flight.
    :param prepare: called with a :class:`Transaction` after the first connection and before any other
        statement, such as to create tables; may return a Deferred or be ``async def``.
    :param reactor: the reactor to use; the global one by default, looked up at the start.
    """

    name = "postgres"

    def __init__(
        self,
        dsn: str | Server,
        *,
        min_size: int = 1,
        max_size: int = 10,
        max_copies: int = 4,
        acquire_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        query_timeout: float | None = 60.0,
        idle_timeout: float = 300.0,
        max_lifetime: float = 3600.0,
        stop_timeout: float = 30.0,
        prepare: Callable[[Transaction], Any] | None = None,
        reactor: Any = None,
    ) -> None:
        if not 0 <= min_size <= max_size or max_size < 1:
            raise ValueError(
                f"min_size {min_size} and max_size {max_size} do not fit: 0 <= min <= max, max >= 1"
            )
        self._server: Server | None = None if isinstance(dsn, str) else dsn
        self._settings = connect_settings(dsn) if isinstance(dsn, str) else None
        self.min_size = min_size
        self.max_size = max_size
        self.max_copies = max_copies
        self.acquire_timeout = acquire_timeout
        self.connect_timeout = connect_timeout
        self.query_timeout = query_timeout
        self.idle_timeout = idle_timeout
        self.max_lifetime = max_lifetime
        self.stop_timeout = stop_timeout
        self._prepare = prepare
        self._reactor = reactor
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: OrderedDict[_Lease | Statement, None] = OrderedDict()
        self._wait_count = self._timeout_count = self._opened_count = self._lost_count = 0
        self._wait_seconds = self._longest_wait = 0.0
        self._opening: set[Deferred[Connection]] = set()
        self._ready = False
        self._preparing = False
        self._broken: Exception | None = None
        self._ready_waiters: list[Deferred[Pool]] = []
        self._starting = False
        self._delay = _FIRST_DELAY
        self._last_error: Exception | None = None
        self._retry_timer: Any = None
        self._wait_timer: Any = None
        self._sweep_timer: Any = None
        self._drained: Deferred[None] | None = None
        self._canceller: Canceller | None = None
        self._listener: Listener | None = None
        self._copier: Copier | None = None

    # -- start and stop --------------------------------------------------------------------------

    def startService(self) -> None:
        """Start connecting, and the server before it where it is ours; see :meth:`when_ready`."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._ready = self._preparing = False
        self._broken = self._last_error = None
        self._delay = _FIRST_DELAY
        self._canceller = Canceller(self._reactor, self._connect)
        self._listener = Listener(self._reactor, self._connect, self.acquire_timeout)
        self._copier = Copier(
            self._reactor,
            self._check_server,
            lambda: self._settings or {},
            self._cancel_backend,
            self.max_copies,
            self.acquire_timeout,
            self._check_drained,
        )
        self._sweep_timer = self._reactor.callLater(_SWEEP_INTERVAL, self._sweep)
        self._begin_attempt()

    def when_ready(self) -> Deferred[Pool]:
        """Fires with the pool when it has a connection and ``prepare`` is done.

        Fails where the server refuses us, where the embedded server cannot be started, and where
        ``prepare`` fails.  While the server cannot be reached it keeps waiting; cancel it to stop that.
        """
        if self._broken is not None:
            return fail(self._broken)
        if self._ready:
            return succeed(self)
        waiting: Deferred[Pool] = Deferred(lambda deferred: self._ready_waiters.remove(deferred))
        self._ready_waiters.append(waiting)
        return waiting

    def stopService(self) -> Deferred[None]:
        """Take no more work, wait for what is in flight, close the connections, stop the server."""
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        self._drained = Deferred()
        timer = self._reactor.callLater(self.stop_timeout, self._drop_work)
        done = self._drained
        done.addCallback(lambda _: timer.cancel() if timer.active() else None)
        done.addCallback(lambda _: self._close())
        if self._listener is not None:
            self._listener.close()
        self._check_drained()
        return done

    def _check_drained(self) -> None:
        drained = self._drained
        copying = self._copier is not None and self._copier.jobs
        if drained is not None and not (self._waiters or copying) and len(self._idle) == len(self._all):
            self._drained = None
            drained.callback(None)

    def _drop_work(self) -> None:
        copying = len(self._copier.jobs) if self._copier is not None else 0
        left = len(self._all) - len(self._idle) + copying
        log.warning("stopping: %d statements or transactions did not end in time", left)
        self._fail_waiters(PoolClosed("the pool is stopped"))
        for connection in list(self._all):
            connection.abort("the pool is stopped")
        if self._copier is not None:
            self._copier.close()
        self._check_drained()

    def _close(self) -> Deferred[None] | None:
        for name in ("_retry_timer", "_wait_timer", "_sweep_timer"):
            timer = getattr(self, name)
            setattr(self, name, None)
            if timer is not None and timer.active():
                timer.cancel()
        for opening in list(self._opening):
            opening.cancel()
        for connection in list(self._all):
            connection.abort("the pool is stopped")
        if self._canceller is not None:
            self._canceller.close()
        self._not_ready(PoolClosed("the pool is stopped"))
        self._ready = False
        if self._server is not None:
            self._settings = None
            return self._server.stop()
        return None

    # -- asking ----------------------------------------------------------------------------------

    def _submit(
        self, sql: str | bytes, parameters: Parameters, collect: Callable[[Any], Any], timeout: float | None
    ) -> Deferred[Any]:
        connection = self._take()
        if connection is not None:
            return connection.run(sql, parameters, collect, timeout)
        return self._wait(Statement(self, sql, parameters, collect, timeout))

    def transaction(self, *, isolation: str | None = None, read_only: bool = False) -> Transaction:
        """A transaction, to be used with ``async with``.

        :param isolation: "read committed", "repeatable read" or "serializable"; the server's default
            (usually read committed) where None.
        :param read_only: have the server refuse changes.

        A transaction is never repeated by the pool.  Retry a
        :exc:`~psycopg2.errors.SerializationFailure` yourself, with the whole block.
        """
        begin = "begin"
        if isolation is not None:
            if isolation.lower() not in _ISOLATION_LEVELS:
                raise ValueError(
                    f"unknown isolation level {isolation!r}: one of {', '.join(_ISOLATION_LEVELS)}"
                )
            begin += f" isolation level {isolation}"
        return Transaction(begin + (" read only" if read_only else ""), self._lease, self._release)

    def run_interaction(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call ``function(transaction, *args, **kwargs)`` in a transaction.

        It may return a value, a Deferred or a coroutine; the Deferred fires with its result after the
        COMMIT.  An error rolls back (``adbapi``'s ``runInteraction``).
        """
        return self.transaction().run(function, *args, **kwargs)

    def execute_many(
        self,
        sql: str,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        batch: int = 500,
        timeout: float | None = None,
    ) -> Deferred[int]:
        """As :meth:`Queries.execute_many`: all rows or none."""
        return self.run_interaction(
            lambda transaction: transaction.execute_many(sql, rows, batch=batch, timeout=timeout)
        )

    def _for_stream(self) -> tuple[Transaction, bool]:
        return self.transaction(), True

    def copy_out(self, sql: str, parameters: Parameters = None, *, timeout: float | None = None) -> CopyOut:
        """``COPY … TO STDOUT`` as an asynchronous iterator of bytes; begun by the first that is asked for.

        It runs on a connection of its own, beside the pool's (``max_copies`` at a time).  COPY has no
        parameters on the server: the driver quotes the values and puts them in.

        :param timeout: seconds that one piece may take; None for ``query_timeout``.
        """
        limit = self.query_timeout if timeout is None else timeout
        return CopyOut(self._copies(), sql, parameters, limit)

    def copy_in(self, sql: str, parameters: Parameters = None, *, timeout: float | None = None) -> CopyIn:
        """``COPY … FROM STDIN``: give it bytes with ``write`` or ``feed``; on a connection of its own too.

        :param timeout: seconds until there is room for more, and from the last byte to the COMMIT; None
            for ``query_timeout``.
        """
        limit = self.query_timeout if timeout is None else timeout
        return CopyIn(self._copies(), sql, parameters, limit)

    def _copies(self) -> Copier:
        if not self.running or self._copier is None:
            raise self._closed_error()
        return self._copier

    def _check_server(self) -> Deferred[None]:
        """Fires when the server answers, which a connection of the pool tells."""
        return self._lease().addCallback(self._release)

    def _cancel_backend(self, pid: int) -> Deferred[None]:
        return fail(self._closed_error()) if self._canceller is None else self._canceller.cancel(pid)

    def listen(
        self, channel: str, callback: Callable[[str], Any], *, on_gap: Callable[[], Any] | None = None
    ) -> Deferred[Subscription]:
        """Call *callback* with the payload of every notification on *channel*.

        Both callbacks may return a Deferred or be ``async def``; what goes wrong in them is logged.

        :param on_gap: called after the connection was lost and is there again: what was sent in
            between is gone, so read the current state anew.
        :returns: a Deferred that fires with the :class:`Subscription` when the server has confirmed it;
            its ``close()`` ends it.  The subscription survives reconnects.  A pool that is only
            starting is waited for; after that it fails with
            :exc:`~cycloneish.db.errors.PoolTimeout` after ``acquire_timeout`` seconds.
        """
        if not self.running or self._listener is None:
            return fail(self._closed_error())
        listener = self._listener
        return self.when_ready().addCallback(lambda _: listener.add(channel, callback, on_gap))

    def stats(self) -> PoolStats:
        """The numbers of the moment and the counters, for a metrics page."""
        return PoolStats(
            size=len(self._all),
            idle=len(self._idle),
            in_use=len(self._all) - len(self._idle),
            opening=len(self._opening),
            waiting=len(self._waiters),
            waits=self._wait_count,
            wait_seconds=self._wait_seconds,
            longest_wait=self._longest_wait,
            timeouts=self._timeout_count,
            opened=self._opened_count,
            lost=self._lost_count,
        )

    # -- taking and giving back ------------------------------------------------------------------

    def _take(self) -> Connection | None:
        """An idle connection that is alive, if the pool is open and has one."""
        if self.running and self._ready:
            while self._idle:
                connection = self._idle.pop()
                if connection.alive():
                    return connection
        return None

    def _wait(self, waiter: _Lease | Statement) -> Deferred[Any]:
        if not self.running:
            return fail(self._closed_error())
        if self._broken is not None:
            return fail(self._broken)
        waiter.since = self._reactor.seconds()
        waiter.deadline = waiter.since + self.acquire_timeout
        self._waiters[waiter] = None
        if self._wait_timer is None:
            self._wait_timer = self._reactor.callLater(self.acquire_timeout, self._expire_waiters)
        if len(self._all) < self.max_size:
            self._grow()
        return waiter

    def withdraw(self, waiter: Any) -> None:
        """A call that waits for a connection was cancelled."""
        self._waiters.pop(waiter, None)
        self._check_drained()

    def _serve(self, connection: Connection, now: float) -> None:
        """Give *connection* to who has waited longest."""
        waiter, _ = self._waiters.popitem(last=False)
        waited = now - waiter.since
        self._wait_count += 1
        self._wait_seconds += waited
        if waited > self._longest_wait:
            self._longest_wait = waited
        waiter.start(connection)

    def _lease(self) -> Deferred[Connection]:
        """A connection that stays the caller's until :meth:`_release`."""
        connection = self._take()
        if connection is None:
            return self._wait(_Lease(self))
        connection.leased = True
        return succeed(connection)

    def _release(self, connection: Connection) -> None:
        connection.leased = False
        if not connection.busy:
            self._give(connection)

    def _became_idle(self, connection: Connection) -> None:
        if not connection.leased:
            self._give(connection)

    def _give(self, connection: Connection) -> None:
        """Put a connection with nothing under way to its next use."""
        if connection.lost is not None:
            return
        if connection.in_transaction:
            log.warning("a transaction was left open on a connection of the pool; it is rolled back")
            connection.run("rollback", None, lambda _: None).addErrback(
                lambda failure: connection.abort(f"ROLLBACK failed: {failure.getErrorMessage()}")
            )
            return
        now = self._now()
        if now - connection.opened_at > self.max_lifetime:
            connection.abort("too old")
            return
        if self._waiters and self._ready:
            self._serve(connection, now)
            return
        connection.idle_since = now
        self._idle.append(connection)
        if self._drained is not None:
            self._check_drained()

    def _expire_waiters(self) -> None:
        self._wait_timer = None
        now = self._now()
        while self._waiters and (waiter := next(iter(self._waiters))).deadline <= now:
            stats = self.stats()
            del self._waiters[waiter]
            self._timeout_count += 1
            text = (
                f"no connection to PostgreSQL became free within {self.acquire_timeout:g} s "
                f"({stats.in_use} of {self.max_size} in use, {stats.waiting} calls waiting)"
            )
            if self._last_error is not None:
                text += f"; the last attempt to connect: {self._last_error}"
            waiter.errback(PoolTimeout(text))
        if self._waiters and self._wait_timer is None:
            soonest = next(iter(self._waiters)).deadline
            self._wait_timer = self._reactor.callLater(max(0.0, soonest - now), self._expire_waiters)
        self._check_drained()

    def _fail_waiters(self, error: Exception) -> None:
        waiters, self._waiters = self._waiters, OrderedDict()
        for waiter in waiters:
            waiter.errback(type(error)(*error.args))

    def _closed_error(self) -> PoolClosed:
        return PoolClosed("the pool is not running: start the service first (startService, setServiceParent)")

    def _now(self) -> float:
        return float(self._reactor.seconds())

    # -- connecting ------------------------------------------------------------------------------

    def _connect(self) -> Deferred[Connection]:
        if self._settings is None:
            return fail(ConnectionLost("the PostgreSQL server has not started yet"))
        return open_connection(self._reactor, self._settings, self.connect_timeout)

    def _begin_attempt(self) -> None:
        """Have the server started where it is ours, then open what is wanted."""
        self._retry_timer = None
        if self._server is None:
            self._grow()
            return
        self._starting = True
        self._server.start().addCallbacks(self._server_started, self._server_failed)

    def _is_over(self) -> bool:
        """Whether the pool was stopped while something was under way, and nobody waits for that any more."""
        return not self.running and not self._waiters

    def _server_started(self, dsn: str) -> None:
        self._starting = False
        if self._is_over():
            return
        if self._settings is None:
            # The first start may make a whole cluster; that time is not the callers' to lose.
            deadline = self._now() + self.acquire_timeout
            for waiter in self._waiters:
                waiter.deadline = deadline
        self._settings = connect_settings(dsn)
        self._grow()

    def _server_failed(self, failure: Failure) -> None:
        self._starting = False
        if self._is_over():
            return
        log.error("the PostgreSQL server cannot be started: %s", failure.getErrorMessage())
        self._last_error = _as_error(failure)
        if not self._ready:
            self._give_up(failure)
        else:
            self._retry_later()

    def _wanted(self) -> int:
        """How many connections to open now."""
        if not self._ready:
            return 0 if self._all or self._opening else 1
        have = len(self._all) + len(self._opening)
        need = max(len(self._waiters) - len(self._opening), self.min_size - have if self.running else 0)
        return min(need, self.max_size - have)

    def _grow(self) -> None:
        if (
            self._starting
            or self._retry_timer is not None
            or self._settings is None
            or self._broken is not None
        ):
            return
        for _ in range(self._wanted()):
            opening = self._connect()
            self._opening.add(opening)
            opening.addCallbacks(
                self._opened, self._not_opened, callbackArgs=(opening,), errbackArgs=(opening,)
            )

    def _opened(self, connection: Connection, opening: Deferred[Connection]) -> None:
        self._opening.discard(opening)
        self._delay = _FIRST_DELAY
        self._last_error = None
        connection.canceller = self._canceller
        connection.query_timeout = self.query_timeout
        connection.on_idle = self._became_idle
        connection.on_lost = self._connection_lost
        self._all.add(connection)
        self._opened_count += 1
        if not self._ready and self._prepare is not None:
            connection.leased = True
            self._run_prepare(connection)
        else:
            self._give(connection)
            if self._ready:
                self._grow()
            else:
                self._become_ready()

    def _run_prepare(self, connection: Connection) -> None:
        transaction = Transaction("begin", self._lease, self._release)
        prepare = self._prepare
        assert prepare is not None
        done = transaction.begin_on(connection)
        done.addCallback(prepare).addCallback(as_deferred)
        done.addCallback(lambda _: transaction.commit())
        done.addErrback(lambda failure: transaction.rollback().addCallback(lambda _: failure))
        done.addCallbacks(self._prepared, self._prepare_failed)

    def _prepared(self, _: object) -> None:
        self._become_ready()

    def _prepare_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, ConnectionLost):
            self._retry_later()
            return
        log.error("preparing the database failed: %s", failure.getErrorMessage())
        self._give_up(failure)

    def _become_ready(self) -> None:
        self._ready = True
        while self._waiters and self._idle:
            self._serve(self._idle.pop(), self._now())
        self._grow()
        waiting, self._ready_waiters = self._ready_waiters, []
        for deferred in waiting:
            deferred.callback(self)

    def _give_up(self, failure: Failure) -> None:
        """The pool cannot be made to work: tell everybody who waits, now and later."""
        self._broken = _as_error(failure)
        waiters, self._waiters = self._waiters, OrderedDict()
        for waiter in waiters:
            waiter.errback(self._broken)
        self._not_ready(self._broken)

    def _not_ready(self, error: Exception) -> None:
        waiting, self._ready_waiters = self._ready_waiters, []
        for deferred in waiting:
            deferred.errback(error)

    def _not_opened(self, failure: Failure, opening: Deferred[Connection]) -> None:
        self._opening.discard(opening)
        if self._is_over():
            return
        error = failure.value
        first = self._last_error is None
        self._last_error = _as_error(failure)
        if first:
            log.warning("%s", failure.getErrorMessage())
        if isinstance(error, ConnectError):
            if not self._ready:
                self._not_ready(error)
            self._fail_waiters(error)
        self._retry_later()

    def _retry_later(self) -> None:
        if self._retry_timer is None and self.running:
            self._retry_timer = self._reactor.callLater(self._delay, self._begin_attempt)
            self._delay = min(self._delay * 1.7, _LONGEST_DELAY)

    def _connection_lost(self, connection: Connection, error: Exception) -> None:
        self._all.discard(connection)
        self._lost_count += 1
        if connection in self._idle:
            self._idle.remove(connection)
        if not self.running:
            self._check_drained()
            return
        log.info("a connection was closed: %s", error)
        if self._server is not None and not self._all and not self._starting and self._retry_timer is None:
            # Our own server may have died: start it again rather than knock at it.
            self._begin_attempt()
        else:
            self._grow()

    def _sweep(self) -> None:
        """Once a second: end statements whose time is over, close what has been idle too long."""
        self._sweep_timer = self._reactor.callLater(_SWEEP_INTERVAL, self._sweep)
        now = self._now()
        for connection in list(self._all):
            if connection.deadline and connection.deadline <= now:
                connection.expire()
        for connection in list(self._idle):
            expendable = len(self._all) > self.min_size and now - connection.idle_since > self.idle_timeout
            if expendable or now - connection.opened_at > self.max_lifetime:
                connection.abort("idle for long" if expendable else "too old")
