"""COPY in and out as streams: a helper connection in a thread of its own, with back-pressure both ways.

psycopg2's asynchronous mode has no COPY.  Each COPY gets a blocking connection and a thread for as long
as it lasts; between the thread and the reactor is a queue of bounded size, so that a slow reader stops
the server and a slow server stops the writer.  Used through :meth:`cycloneish.db.postgres.Pool.copy_in`
and :meth:`~cycloneish.db.postgres.Pool.copy_out`.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from ..coroutines import drive
from .connection import CANCEL_TIMEOUT, Parameters
from .errors import ConnectionLost, DatabaseError, PoolClosed, PoolTimeout, QueryTimeout
from .opening import connect_failure

import psycopg2  # isort: skip  (after the connection, which says what to install where it is missing)

__all__ = ["Copier", "CopyIn", "CopyOut"]

log = logging.getLogger("cycloneish.db")

#: Bytes that the thread reads or collects before it hands them on.
CHUNK = 65_536
#: Bytes between the thread and the reactor at which the faster one has to wait.
HIGH_WATER = 4 * CHUNK
#: Seconds that the thread waits for somebody to ask for the next piece, or to bring it.
IDLE_LIMIT = 600.0


class _Stopped(Exception):
    """Raised in the thread to leave a COPY that nobody wants any more."""


class Copier:
    """Starts the COPY jobs of a pool, and knows which are under way.

    :param check: fires when the server is there; fails in time where it is not.
    :param settings: gives the parameters of a connection.
    :param cancel: asks the server to end what a backend does.
    :param limit: jobs at a time; the others wait.
    :param timeout: seconds that a job waits for its turn, and for its connection.
    :param over: called after the end of each job.
    """

    def __init__(
        self,
        reactor: Any,
        check: Callable[[], Deferred[Any]],
        settings: Callable[[], dict[str, Any]],
        cancel: Callable[[int], Deferred[None]],
        limit: int,
        timeout: float,
        over: Callable[[], None],
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        self.cancel = cancel
        self.timeout = timeout
        self.jobs: set[_Copy] = set()
        self._check = check
        self._over = over
        self._turns = DeferredSemaphore(limit)

    def start(self, job: _Copy) -> Deferred[Any]:
        """Fires when the thread of *job* was started."""
        return self._check().addCallback(lambda _: self._turn()).addCallback(lambda _: self._begin(job))

    def close(self) -> None:
        """Break off what is under way."""
        for job in list(self.jobs):
            job.stop(PoolClosed("the pool is stopped"))

    def _turn(self) -> Deferred[Any]:
        turn: Deferred[Any] = self._turns.acquire()

        def too_late(_: object, timeout: float) -> None:
            raise PoolTimeout(f"no turn for a COPY within {timeout:g} s: {len(self.jobs)} are under way")

        return turn if turn.called else turn.addTimeout(self.timeout, self.reactor, onTimeoutCancel=too_late)

    def _begin(self, job: _Copy) -> None:
        self.jobs.add(job)
        threading.Thread(target=job.work, name="cycloneish-copy", daemon=True).start()

    def ended(self, job: _Copy) -> None:
        """The thread of *job* is over."""
        self.jobs.discard(job)
        self._turns.release()
        self._over()


class _Copy:
    """What both directions have in common: the thread, its connection, and how they are ended."""

    def __init__(self, copier: Copier, sql: str, parameters: Parameters, timeout: float | None) -> None:
        self._copier = copier
        self._timeout = timeout
        self._sql = sql
        self._parameters = parameters
        self._room = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        # Set on the reactor, read by the thread.
        self._stopped = False
        self._connection: Any = None
        self._starting: Deferred[Any] | None = None
        # What became of it; None while it is under way.
        self._rows: int | None = None
        self._error: Exception | None = None
        self._over = False
        self._waiter: Deferred[Any] | None = None
        self._ended: list[Deferred[None]] = []
        self._last_resort: Any = None
        # What the thread has read and not handed on yet.
        self._rows_of_piece: list[bytes] = []

    # -- on the reactor --------------------------------------------------------------------------

    def _start(self) -> None:
        if self._starting is not None or self._over:
            return
        self._starting = self._copier.start(self)
        self._starting.addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        self._finished(None, error if isinstance(error, Exception) else DatabaseError(str(error)))

    def _wait(self) -> Deferred[Any]:
        """The one who waits for the thread; cancelling ends the COPY."""
        if self._waiter is not None:
            return fail(RuntimeError("the answer to the call before has to be waited for first"))
        waiter = self._waiter = Deferred(self._waiter_cancelled)
        limit = self._timeout
        if limit is not None and limit != math.inf:
            error = QueryTimeout(
                f"the COPY did not go on for {limit:g} s and was cancelled: {self._sql[:200]}"
            )
            waiter.addBoth(self._in_time, self._copier.reactor.callLater(limit, self.stop, error))
        return waiter

    def _in_time(self, result: Any, timer: Any) -> Any:
        if timer.active():
            timer.cancel()
        return result

    def _waiter_cancelled(self, _: object) -> None:
        self._waiter = None
        self.stop(CancelledError())

    def stop(self, error: Exception) -> None:
        """Leave the COPY; the server is told, and undoes what was sent to it."""
        if self._over or self._stopped:
            return
        self._error = error
        with self._room:
            self._stopped = True
            self._queue.clear()
            self._queued = 0
            self._room.notify_all()
            connection = self._connection
        if self not in self._copier.jobs:
            if self._starting is not None:
                self._starting.cancel()
            self._finished(None, error)
            return
        if connection is not None:
            self._copier.cancel(connection.info.backend_pid).addErrback(lambda _: None)
        self._last_resort = self._copier.reactor.callLater(CANCEL_TIMEOUT, self._cut)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.errback(error)

    def _cut(self) -> None:
        """The server did not answer: shut the socket under the thread."""
        self._last_resort = None
        with self._room:
            connection = self._connection
            if connection is None or connection.closed:
                return
            number = os.dup(connection.fileno())
        with socket.socket(fileno=number) as handle:
            try:
                handle.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("shutting the connection of a COPY: %s", error)

    def _finished(self, rows: int | None, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._rows = rows
        if self._error is None:
            self._error = error
        timer, self._last_resort = self._last_resort, None
        if timer is not None and timer.active():
            timer.cancel()
        if self in self._copier.jobs:
            self._copier.ended(self)
        self._wake()
        ended, self._ended = self._ended, []
        for deferred in ended:
            deferred.callback(None)

    def close(self) -> Deferred[None]:
        """Break the COPY off where it is under way; fires when its connection is closed."""
        if self._starting is None or self._over:
            self._over = True
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._ended.append(done)
        self.stop(ConnectionLost("the COPY was closed"))
        return done

    def _wake(self) -> None:
        raise NotImplementedError

    # -- in the thread ---------------------------------------------------------------------------

    def work(self) -> None:
        """The thread: connect, copy, commit."""
        rows: int | None = None
        failed: Exception | None = None
        try:
            rows = self._copy()
        except Exception as error:
            failed = error
        finally:
            with self._room:
                connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        self._tell(self._finished, rows, failed)

    def _copy(self) -> int:
        settings = dict(self._copier.settings())
        settings.setdefault("connect_timeout", str(math.ceil(max(2.0, self._copier.timeout))))
        try:
            connection = psycopg2.connect(**settings)
        except psycopg2.OperationalError as error:
            raise connect_failure(error) from error
        with self._room:
            self._connection = connection
            if self._stopped:
                raise _Stopped
        try:
            cursor = connection.cursor()
            statement = self._sql if self._parameters is None else cursor.mogrify(self._sql, self._parameters)
            cursor.copy_expert(statement, self, CHUNK)
            if self._stopped:
                raise _Stopped
            self._last()
            connection.commit()
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if connection.closed or not error.pgcode:
                raise ConnectionLost(f"the connection of a COPY was lost: {error}") from error
            raise
        return int(cursor.rowcount)

    def _last(self) -> None:
        """The COPY came to its end, and is about to be committed."""

    def _hold(self) -> None:
        """Wait for the reactor's side, which may have forgotten about the COPY."""
        if not self._room.wait(IDLE_LIMIT) and not self._stopped:
            raise QueryTimeout(f"the COPY was given up: nothing was asked of it for {IDLE_LIMIT:g} s")

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._copier.reactor.callFromThread(function, *args)
        except ReactorNotRunning:  # pragma: no cover
            log.debug("a COPY ended after the reactor")


class CopyOut(_Copy):
    """What ``COPY … TO STDOUT`` sends, piece by piece::

        async with pool.copy_out("copy (select * from article) to stdout (format csv, header)") as rows:
            async for piece in rows:
                self.write(piece)
                await self.flush()

    Pieces are bytes of about 64 KiB that end where a row ends.  While they are not asked for, the server
    waits.  Cancelling, or leaving the block early, ends the COPY on the server.
    """

    def fetch(self) -> Deferred[bytes]:
        """Fires with the next piece, and with ``b""`` at the end.

        Cancelling it ends the COPY.  Fails with the server's error, or with
        :exc:`~cycloneish.db.errors.ConnectionLost`, :exc:`~cycloneish.db.errors.PoolTimeout`.
        """
        self._start()
        with self._room:
            if self._queue:
                piece = self._queue.popleft()
                self._queued -= len(piece)
                self._room.notify_all()
                return succeed(piece)
        if self._stopped or self._over:
            return succeed(b"") if self._error is None else fail(self._error)
        return self._wait()

    def _wake(self) -> None:
        if self._waiter is None:
            return
        with self._room:
            piece = self._queue.popleft() if self._queue else b""
            self._queued -= len(piece)
            self._room.notify_all()
        if not piece and not self._over:
            return
        waiter, self._waiter = self._waiter, None
        if not piece and self._error is not None:
            waiter.errback(self._error)
        else:
            waiter.callback(piece)

    def __aiter__(self) -> CopyOut:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.fetch()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> CopyOut:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close()
        if kind is None or not issubclass(kind, GeneratorExit):
            await closing

    # -- in the thread ---------------------------------------------------------------------------

    _collected = 0

    def write(self, data: bytes) -> int:
        """Called by psycopg2 with a row."""
        # Not added to one another: for small rows that would be a copy of the whole piece for each.
        self._rows_of_piece.append(data)
        self._collected += len(data)
        if self._collected >= CHUNK:
            self._last()
        return len(data)

    def _last(self) -> None:
        if self._collected:
            piece = b"".join(self._rows_of_piece)
            self._rows_of_piece.clear()
            self._collected = 0
            self._hand_on(piece)

    def _hand_on(self, piece: bytes) -> None:
        with self._room:
            while self._queued >= HIGH_WATER and not self._stopped:
                self._hold()
            if self._stopped:
                raise _Stopped
            self._queue.append(piece)
            self._queued += len(piece)
        self._tell(self._wake)


class CopyIn(_Copy):
    """Takes what ``COPY … FROM STDIN`` stores, piece by piece::

        async with pool.copy_in("copy article (id, name) from stdin (format csv)") as rows:
            async for piece in upload:
                await rows.write(piece)
        print(rows.count)

    or ``count = await pool.copy_in("copy …").feed(pieces)``.  It is a transaction of its own: leaving the
    block commits; an error or a cancellation leaves nothing behind.

    :ivar count: rows stored, once it is over.
    """

    _complete = False
    count = 0

    def write(self, data: bytes | str) -> Deferred[None]:
        """Send *data*, which may end in the middle of a row; fires when there is room for more.

        Cancelling it ends the COPY, and nothing is stored.
        """
        self._start()
        if self._over or self._stopped or self._complete:
            return fail(self._error or RuntimeError("the COPY is over"))
        piece = data.encode() if isinstance(data, str) else bytes(data)
        if not piece:
            return succeed(None)
        with self._room:
            self._queue.append(piece)
            self._queued += len(piece)
            self._room.notify_all()
            full = self._queued >= HIGH_WATER
        return self._wait() if full else succeed(None)

    def finish(self) -> Deferred[int]:
        """All is written: fires with the number of rows when the server has committed them."""
        self._start()
        if self._over or self._stopped:
            return succeed(self.count) if self._error is None else fail(self._error)
        with self._room:
            self._complete = True
            self._room.notify_all()
        return self._wait().addCallback(lambda _: self.count)

    def feed(self, source: Iterable[bytes | str] | AsyncIterable[bytes | str]) -> Deferred[int]:
        """Write all of *source*, then :meth:`finish`; an error in *source* ends the COPY."""
        return drive(self._feed(source))

    async def _feed(self, source: Any) -> int:
        async with self:
            if hasattr(source, "__aiter__"):
                async for piece in source:
                    await self.write(piece)
            else:
                for piece in [source] if isinstance(source, bytes | str) else source:
                    await self.write(piece)
        return self.count

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        if self._over:
            self.count = self._rows or 0
            self._waiter = None
            if self._error is not None:
                waiter.errback(self._error)
            else:
                waiter.callback(None)
        elif not self._complete and self._queued < HIGH_WATER:
            self._waiter = None
            waiter.callback(None)

    async def __aenter__(self) -> CopyIn:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish()
            return
        closing = self.close()
        if not issubclass(kind, GeneratorExit):
            await closing

    # -- in the thread ---------------------------------------------------------------------------

    def read(self, size: int = -1) -> bytes:
        """Called by psycopg2 for the next bytes; none are the end."""
        with self._room:
            while not self._queue and not self._complete and not self._stopped:
                self._hold()
            if self._stopped:
                raise _Stopped
            if not self._queue:
                return b""
            piece = self._queue.popleft()
            if 0 <= size < len(piece):
                self._queue.appendleft(piece[size:])
                piece = piece[:size]
            before, self._queued = self._queued, self._queued - len(piece)
            crossed = before >= HIGH_WATER > self._queued
        if crossed:
            self._tell(self._wake)
        return piece
