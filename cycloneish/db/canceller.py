"""The cancel requests of a pool, over one connection of their own.

The pool (:mod:`cycloneish.db.postgres`) makes one :class:`Canceller` and gives it to its connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from .connection import CANCEL_TIMEOUT, Connection
from .errors import ConnectionLost

__all__ = ["CANCELLER_IDLE", "Canceller"]

#: Seconds after which the connection that sends cancel requests is closed when it has nothing to do.
CANCELLER_IDLE = 30.0


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
