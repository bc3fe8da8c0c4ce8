"""``Database``: SQLAlchemy on Deferreds, as a service::

    db = Database("postgresql://shop@db.example/shop", max_size=20)

    user = await db.fetch_value(select(User).where(User.name == name))
    async with db.session() as session:
        session.add(Order(user=user))
        await session.commit()
    total = await db.run(count_orders, user.id)  # a plain function of SQLAlchemy's session

PostgreSQL goes through the dialect ``postgresql+txpostgres`` and the pool of :mod:`cycloneish.db.postgres`,
without threads; other databases go through their blocking drivers in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from ..coroutines import as_deferred
from .backends import Backend, ReactorBackend, ThreadBackend
from .errors import QueryTimeout
from .session import BUFFERED, Session, buffered
from .streams import Stream

import sqlalchemy  # isort: skip  (after those that say what to install where it is missing)
from sqlalchemy import orm  # isort: skip
from sqlalchemy.engine import Engine, Result, Row  # isort: skip
from sqlalchemy.sql.base import Executable  # isort: skip

__all__ = ["Database"]

log = logging.getLogger("cycloneish.db")

T = TypeVar("T")

#: SQLSTATEs after which the same transaction may succeed: serialization failure, deadlock.
_RETRIED = ("40001", "40P01")
_POSTGRES = ("postgresql", "postgres", "postgresql+txpostgres", "embedded")


class Database(Service):
    """A database, asked with SQLAlchemy's statements and mapped classes.

    :param url: ``postgresql://…``, ``embedded:///DIRECTORY`` (see :mod:`cycloneish.db.urls`),
        ``sqlite:///FILE``, or any URL of SQLAlchemy's for a driver that blocks (``mysql+pymysql://…``).
    :param prepare: called with the database after the first connection and before it is called ready, such as
        to create tables; may return a Deferred or be ``async def``.
    :param expire_on_commit: SQLAlchemy's: whether a commit makes objects forget what was loaded.  False by
        default, as reading a forgotten attribute asks the database.
    :param engine_options: for ``sqlalchemy.create_engine``, such as ``{"echo": True}``.
    :param session_options: for ``sqlalchemy.orm.Session``.
    :param reactor: the reactor to use; the global one by default.
    :param options: with PostgreSQL those of :class:`~cycloneish.db.postgres.Pool` (``max_size``,
        ``query_timeout`` and so on); otherwise ``max_size`` and ``acquire_timeout``.
    """

    name = "database"

    def __init__(
        self,
        url: str,
        *,
        prepare: Callable[[Database], Any] | None = None,
        expire_on_commit: bool = False,
        engine_options: dict[str, Any] | None = None,
        session_options: dict[str, Any] | None = None,
        reactor: Any = None,
        **options: Any,
    ) -> None:
        self.url = url
        self._prepare = prepare
        self._session_options = {"expire_on_commit": expire_on_commit, **(session_options or {})}
        self._reactor = reactor
        self._backend = _backend(url, engine_options or {}, reactor, options)
        self._ready: Failure | bool = False
        self._waiting: list[Deferred[Database]] = []
        self._preparing: Deferred[Any] | None = None

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine; with PostgreSQL to be used inside :meth:`run` only."""
        return self._backend.engine

    @property
    def pool(self) -> Any:
        """The :class:`~cycloneish.db.postgres.Pool` underneath: ``listen``, ``notify``, statistics.

        :raises AttributeError: for a database other than PostgreSQL.
        """
        if isinstance(self._backend, ReactorBackend):
            return self._backend.pool
        raise AttributeError(f"a {self.engine.name} database runs in threads and has no pool of ours")

    # -- start and stop --------------------------------------------------------------------------

    def startService(self) -> None:
        """Start connecting; see :meth:`when_ready`."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._ready = False
        starting = self._preparing = self._backend.start()
        if self._prepare is not None:
            prepare = self._prepare
            starting.addCallback(lambda _: as_deferred(prepare(self)))
        starting.addCallbacks(self._became_ready, self._failed_to_start)

    def _became_ready(self, _: object) -> None:
        self._ready = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self)

    def _failed_to_start(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.error("the database cannot be used: %s", failure.getErrorMessage())
        self._ready = failure
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(failure)

    def when_ready(self) -> Deferred[Database]:
        """Fires with the database when it can be asked and ``prepare`` is done; fails where that fails."""
        if self._ready is True:
            return succeed(self)
        if isinstance(self._ready, Failure):
            return fail(self._ready)
        waiting: Deferred[Database] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def stopService(self) -> Deferred[None]:
        """Wait for what is in flight, then close the connections."""
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        if self._ready is False and self._preparing is not None:
            self._preparing.cancel()
        return self._backend.stop()

    # -- asking ----------------------------------------------------------------------------------

    def execute(
        self, statement: Executable | str, parameters: Any = None, *, timeout: float | None = None
    ) -> Deferred[Result[Any]]:
        """Run one statement, committed by itself; fires with its result, whose rows are in memory.

        :param statement: of SQLAlchemy's, mapped classes included, or text with ``:name`` for values.
        :param parameters: the values, in a dictionary; or a list of dictionaries to run it many times.
        :param timeout: seconds; the statement is then cancelled and fails with
            :exc:`~cycloneish.db.errors.QueryTimeout`.  None for the pool's ``query_timeout``.
        """
        return self._ask(statement, parameters, None, timeout)

    def _ask(
        self,
        statement: Executable | str,
        parameters: Any,
        finish: Callable[[Result[Any]], Any] | None,
        timeout: float | None,
    ) -> Deferred[Any]:
        answer = self._backend.ask(statement, parameters, finish, timeout)
        if answer is not None:
            return answer
        session = self._new_session(read_only=_only_reads(statement))

        def work() -> Any:
            with session.sync_session as sync:
                result = buffered(sync.execute(_text(statement), parameters, execution_options=BUFFERED))
                sync.commit()
            return result if finish is None else finish(result)

        return self._limited(session._do(work), timeout, statement)

    def fetch_all(
        self, statement: Executable | str, parameters: Any = None, *, timeout: float | None = None
    ) -> Deferred[list[Row[Any]]]:
        """Run a query; fires with the list of its rows."""
        return self._ask(statement, parameters, _all, timeout)

    def fetch_one(
        self, statement: Executable | str, parameters: Any = None, *, timeout: float | None = None
    ) -> Deferred[Row[Any] | None]:
        """Run a query; fires with its first row, or None where it has none."""
        return self._ask(statement, parameters, _one, timeout)

    def fetch_value(
        self, statement: Executable | str, parameters: Any = None, *, timeout: float | None = None
    ) -> Deferred[Any]:
        """Run a query; fires with the first column (or object) of its first row, or None."""
        return self._ask(statement, parameters, _value, timeout)

    def fetch_values(
        self, statement: Executable | str, parameters: Any = None, *, timeout: float | None = None
    ) -> Deferred[list[Any]]:
        """Run a query; fires with the list of the first columns (or objects) of its rows."""
        return self._ask(statement, parameters, _values, timeout)

    def stream(self, statement: Executable | str, parameters: Any = None, *, batch: int = 500) -> Stream:
        """The rows of a query as they are wanted, *batch* of them in memory; see :class:`Stream`."""
        session = self._new_session(read_only=_only_reads(statement))
        return Stream(session, _text(statement), parameters, batch, owns=True)

    # -- sessions --------------------------------------------------------------------------------

    def session(self, *, isolation: str | None = None, read_only: bool = False, **options: Any) -> Session:
        """A session, for ``async with``; what is not committed in it is rolled back.

        :param isolation: "REPEATABLE READ", "SERIALIZABLE" or another level that the database has.
        :param read_only: the session changes nothing; PostgreSQL makes sure of it.
        :param options: for ``sqlalchemy.orm.Session``.
        """
        return self._new_session(isolation, read_only, options)

    def begin(self, *, isolation: str | None = None, **options: Any) -> Session:
        """As :meth:`session`, but leaving the block commits."""
        return self._new_session(isolation, False, options, commits=True)

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        isolation: str | None = None,
        read_only: bool = False,
        retries: int = 0,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Deferred[T]:
        """Call ``function(session, *args, **kwargs)``, plain SQLAlchemy code, in a transaction.

        It is committed when *function* returns, and rolled back when it raises.  With PostgreSQL the function
        runs on the reactor's own thread and gives way whenever it waits for the database.

        :param retries: how often to begin again, with a new session, after a serialization failure or a
            deadlock.  0 by default, as *function* must not do anything that cannot be repeated.
        :param timeout: seconds for all of it.
        """

        def attempt() -> T:
            left = retries
            while True:
                try:
                    with session.sync_session as sync:
                        result = function(sync, *args, **kwargs)
                        sync.commit()
                        return result
                except sqlalchemy.exc.DBAPIError as error:
                    if left <= 0 or getattr(error.orig, "pgcode", None) not in _RETRIED:
                        raise
                    left -= 1

        session = self._new_session(isolation, read_only)
        return self._limited(session._do(attempt), timeout, function)

    def run_connection(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Call ``function(connection, *args, **kwargs)`` with SQLAlchemy's own connection.

        As :meth:`run`, but below the ORM, and only *function* commits: for migrations and tools.
        """
        work = self._new_session()

        def connected() -> T:
            with self._backend.engine.connect() as connection:
                return function(connection, *args, **kwargs)

        return work._do(connected)

    def inspect(self, function: Callable[..., T]) -> Deferred[T]:
        """Call *function* with SQLAlchemy's inspector: ``db.inspect(lambda i: i.get_table_names())``."""
        return self.run_connection(lambda connection: function(sqlalchemy.inspect(connection)))

    def create_all(self, metadata: sqlalchemy.MetaData) -> Deferred[None]:
        """Create the tables of *metadata* that are not there yet."""
        return self.run(lambda session: metadata.create_all(session.connection()))

    def drop_all(self, metadata: sqlalchemy.MetaData) -> Deferred[None]:
        """Drop the tables of *metadata*."""
        return self.run(lambda session: metadata.drop_all(session.connection()))

    def _new_session(
        self,
        isolation: str | None = None,
        read_only: bool = False,
        options: dict[str, Any] | None = None,
        commits: bool = False,
    ) -> Session:
        engine = self._backend.engine
        wanted: dict[str, Any] = {}
        if isolation is not None:
            wanted["isolation_level"] = isolation.upper()
        if read_only:
            postgres = isinstance(self._backend, ReactorBackend)
            wanted["postgresql_readonly" if postgres else "cycloneish_read_only"] = True
        bind = engine.execution_options(**wanted) if wanted else engine
        sync_session = orm.Session(bind, **{**self._session_options, **(options or {})})
        return Session(self._backend, sync_session, read_only=read_only, commits=commits)

    def _limited(self, deferred: Deferred[T], timeout: float | None, what: object) -> Deferred[T]:
        if timeout is None:
            return deferred

        def too_late(result: Any, seconds: float) -> Any:
            if isinstance(result, Failure) and result.check(CancelledError):
                raise QueryTimeout(f"took more than {seconds:g} s and was cancelled: {str(what)[:200]}")
            return result

        return deferred.addTimeout(timeout, self._reactor, too_late)


def _backend(url: str, engine_options: dict[str, Any], reactor: Any, options: dict[str, Any]) -> Backend:
    scheme, _, rest = url.partition(":")
    if scheme in _POSTGRES:
        return _postgres(scheme, rest, engine_options, reactor, options)
    try:
        return ThreadBackend(
            url,
            connections=options.pop("max_size", 5),
            acquire_timeout=options.pop("acquire_timeout", 10.0),
            engine_options=engine_options,
            reactor=reactor,
            **options,
        )
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
        # SQLAlchemy's text may quote the URL, password and all.
        raise ValueError(
            "a database URL begins with postgresql://, embedded:///, sqlite:/// or another name that "
            "SQLAlchemy knows"
        ) from error


def _postgres(
    scheme: str, rest: str, engine_options: dict[str, Any], reactor: Any, options: dict[str, Any]
) -> Backend:
    from . import dialect, direct, leasing, urls

    pool = urls.open_database(f"{scheme.partition('+')[0]}:{rest}", reactor=reactor, **options)
    dialect.register()
    engine = sqlalchemy.create_engine(
        "postgresql+txpostgres://", pool=leasing.LeasingPool(source=pool), **engine_options
    )
    return ReactorBackend(pool, engine, direct.Direct(engine, pool).ask)


def _text(statement: Executable | str) -> Executable:
    return sqlalchemy.text(statement) if isinstance(statement, str) else statement


def _only_reads(statement: Executable | str) -> bool:
    return getattr(statement, "is_select", False) and getattr(statement, "_for_update_arg", None) is None


def _all(result: Result[Any]) -> list[Row[Any]]:
    return list(result.all())


def _one(result: Result[Any]) -> Row[Any] | None:
    return result.first()


def _value(result: Result[Any]) -> Any:
    return result.scalar()


def _values(result: Result[Any]) -> list[Any]:
    return list(result.scalars().all())
