"""Where SQLAlchemy's code runs: in greenlets on the reactor, or in threads of ours.

:class:`ReactorBackend` is for PostgreSQL: nothing blocks, no thread.  :class:`ThreadBackend` is for
drivers that block: SQLite, with one writer at a time, and any other database of SQLAlchemy's.
:class:`cycloneish.db.database.Database` picks one by its URL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from .bridge import spawn
from .errors import PoolClosed, PoolTimeout

from sqlalchemy import create_engine, event  # isort: skip  (after the bridge, which names the extra)
from sqlalchemy.engine import URL, Engine, make_url  # isort: skip
from sqlalchemy.pool import StaticPool  # isort: skip

__all__ = ["Backend", "ReactorBackend", "ThreadBackend", "Work"]

log = logging.getLogger("cycloneish.db")

_BUSY_TIMEOUT = 30.0


class Work(Protocol):
    """A piece of work with SQLAlchemy that may need a connection for longer than one call."""

    def in_transaction(self) -> bool:
        """Whether it keeps its connection."""

    #: Whether it has said that it writes nothing.
    read_only: bool
    #: What it holds of the backend, if anything.
    slot: Any


class Backend(Protocol):
    """What :class:`cycloneish.db.database.Database` needs of either."""

    engine: Engine

    @property
    def ask(self) -> Callable[..., Deferred[Any] | None]:
        """The short way for statements without mapped objects; gives None where it cannot be gone."""

    def start(self) -> Deferred[Any]:
        """Get ready; fires when the database can be asked."""

    def stop(self) -> Deferred[None]:
        """Wait for the work in flight and let go."""

    def call(self, work: Work, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call *function*, which asks the database, for *work*."""


class ReactorBackend:
    """PostgreSQL on the reactor, with connections of *pool*, and :mod:`cycloneish.db.direct` as *ask*."""

    def __init__(self, pool: Any, engine: Engine, ask: Callable[..., Deferred[Any] | None]) -> None:
        self.pool = pool
        self.engine = engine
        self.ask = ask

    def start(self) -> Deferred[Any]:
        """Start the pool."""
        self.pool.startService()
        ready: Deferred[Any] = self.pool.when_ready()
        return ready

    def stop(self) -> Deferred[None]:
        """Stop the pool."""
        done: Deferred[None] = self.pool.stopService()
        return done

    def call(self, work: Work, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call *function* in a greenlet, at once."""
        return spawn(function, *args, **kwargs)


class _InThread(Deferred[Any]):
    """The result of a call in a thread, which cannot be stopped half-way.

    Cancelling it lets the call come to its end, and then fails: until then the connection is in use.
    """

    cancelled = False

    def cancel(self) -> None:
        """Have it fail with ``CancelledError`` when the thread is done."""
        self.cancelled = True

    def done(self, result: Any) -> None:
        """What the thread gave."""
        if self.cancelled:
            self.errback(CancelledError())
        elif isinstance(result, Failure):
            self.errback(result)
        else:
            self.callback(result)


class ThreadBackend:
    """A database whose driver blocks, in a bounded pool of threads of its own.

    A transaction takes a place among *connections* when it begins and gives it back when it ends, so that no
    thread ever waits for another.  With SQLite only one transaction that may write is open at a time:
    the others wait here, on the reactor, and not for a lock in a thread.

    :param connections: connections, and threads, at most.
    :param acquire_timeout: seconds to wait for a place.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        connections: int = 5,
        acquire_timeout: float = 10.0,
        engine_options: dict[str, Any] | None = None,
        reactor: Any = None,
    ) -> None:
        parsed = make_url(url)
        self._sqlite = parsed.get_backend_name() == "sqlite"
        options = dict(engine_options or {})
        if self._sqlite and parsed.database in (None, "", ":memory:"):
            # There is no more than one connection to such a database, and every thread has to see it.
            connections = 1
        if self._sqlite:
            options.setdefault("connect_args", {}).update(timeout=_BUSY_TIMEOUT, check_same_thread=False)
            if parsed.database and parsed.database != ":memory:":
                parsed = parsed.set(database=unquote(parsed.database))
        if self._sqlite and parsed.database in (None, "", ":memory:"):
            options.setdefault("poolclass", StaticPool)
        else:
            options.setdefault("pool_size", connections)
            options.setdefault("max_overflow", 0)
            options.setdefault("pool_timeout", acquire_timeout)
        self.engine = create_engine(parsed, **options)
        if self._sqlite:
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self.acquire_timeout = acquire_timeout
        self._places = DeferredSemaphore(connections)
        self._writer = DeferredSemaphore(1)
        self._connections = connections
        self._threads: ThreadPool | None = None
        self._reactor = reactor
        self._in_flight = 0
        self._drained: Deferred[None] | None = None

    def ask(self, *_: Any) -> None:
        """There is no shorter way than a thread."""

    def start(self) -> Deferred[Any]:
        """Start the threads."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._threads = ThreadPool(0, self._connections, "cycloneish.db")
        self._threads.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Wait for the calls in flight; then close the connections and end the threads."""
        threads, drained = self._threads, Deferred[None]()
        if threads is None:
            return succeed(None)
        self._threads = None

        def close(_: object) -> Deferred[Any]:
            return deferToThreadPool(self._reactor, threads, self.engine.dispose)

        drained.addCallback(close).addBoth(lambda _: threads.stop())
        if self._in_flight:
            self._drained = drained
        else:
            drained.callback(None)
        return drained

    def call(self, work: Work, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call *function* in a thread, when there is a place for it."""
        if self._threads is None:
            return fail(PoolClosed("the database is not running: start the service first"))
        if work.slot is not None:
            return self._run(work, function, args, kwargs)
        return self._take(work).addCallback(lambda _: self._run(work, function, args, kwargs))

    def _take(self, work: Work) -> Deferred[None]:
        """A place for *work*; with SQLite the writer's, too."""
        wanted = [self._writer, self._places] if self._sqlite and not work.read_only else [self._places]
        held: list[DeferredSemaphore] = []

        def take(_: object) -> Deferred[Any] | None:
            if len(held) == len(wanted):
                work.slot = held
                return None
            waiting = wanted[len(held)].acquire()
            waiting.addTimeout(self.acquire_timeout, self._reactor, _no_place)
            return waiting.addCallback(lambda _: held.append(wanted[len(held)])).addCallback(take)

        def failed(failure: Failure) -> Failure:
            for semaphore in held:
                semaphore.release()
            return failure

        return succeed(None).addCallback(take).addErrback(failed)

    def _run(
        self, work: Work, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Deferred[Any]:
        threads = self._threads
        if threads is None:
            self._leave(work)
            return fail(PoolClosed("the database was stopped"))
        self._in_flight += 1
        result = _InThread()

        def done(value: Any) -> None:
            self._in_flight -= 1
            if not work.in_transaction():
                self._leave(work)
            result.done(value)
            if self._drained is not None and not self._in_flight:
                drained, self._drained = self._drained, None
                drained.callback(None)

        run = copy_context().run
        deferToThreadPool(self._reactor, threads, run, function, *args, **kwargs).addBoth(done)
        return result

    def _leave(self, work: Work) -> None:
        held, work.slot = work.slot, None
        for semaphore in held or ():
            semaphore.release()


def _no_place(_: object, seconds: float) -> Any:
    raise PoolTimeout(f"no connection to the database became free within {seconds:g} s")


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver would begin transactions when it thinks fit; here SQLAlchemy says when.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        cursor.execute(f"pragma {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and writes later could otherwise find the database locked for good.
    reading = connection.get_execution_options().get("cycloneish_read_only")
    connection.exec_driver_sql("begin" if reading else "begin immediate")
