"""SQLAlchemy's pool interface on :class:`cycloneish.db.postgres.Pool`: leases, no connections of its own.

SQLAlchemy keeps a record for each connection; here the record stays with the connection of ours, so that
what the engine does to a new connection is done once, and taking and giving back cost no round trip.
Used by the dialect (:mod:`cycloneish.db.dialect`) and :mod:`cycloneish.db.database`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from .adapter import AdaptedTxConnection
from .bridge import inside, wait
from .connection import Connection
from .postgres import Pool

from sqlalchemy.pool import Pool as SQLAlchemyPool  # isort: skip
from sqlalchemy.pool.base import _ConnectionRecord  # isort: skip

__all__ = ["LeasingPool"]


class LeasingPool(SQLAlchemyPool):
    """Connections on loan from a pool of ours.

    :param creator: how SQLAlchemy would connect; asked for its settings where there is no *source*.
    :param source: the pool of ours; without one it makes its own, ``pool_size + max_overflow`` connections
        at most and ``pool_timeout`` seconds of waiting, which ``engine.dispose()`` stops.
    """

    def __init__(
        self,
        creator: Any = None,
        *,
        source: Pool | None = None,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(self._adopt, **options)  # type: ignore[arg-type]
        self._given_creator = creator
        self._given_source = self._source = source
        self._sizes = pool_size, max_overflow, timeout
        self._adopting: Connection | None = None
        self._first: Deferred[None] | None = None
        self.initialised = False

    # -- SQLAlchemy calls these ------------------------------------------------------------------

    def recreate(self) -> LeasingPool:
        """Another one like this (``engine.dispose()`` leaves it behind)."""
        pool_size, max_overflow, timeout = self._sizes
        return type(self)(
            self._given_creator,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
            source=self._given_source,
            pool_size=pool_size,
            max_overflow=max_overflow,
            timeout=timeout,
        )

    def dispose(self) -> None:
        """Stop the pool where it is our own; a given one belongs to whoever gave it."""
        if self._given_source is not None or self._source is None:
            return
        source, self._source = self._source, None
        stopping = source.stopService()
        if inside():
            wait(stopping)

    def status(self) -> str:
        """A line for people."""
        return repr(self._source.stats()) if self._source is not None else "not used yet"

    # Names that SQLAlchemy's tests and tools look at.
    def size(self) -> int:
        """Connections at most."""
        return self._pool().max_size

    def checkedout(self) -> int:
        """Connections in use."""
        return self._source.stats().in_use if self._source is not None else 0

    def checkedin(self) -> int:
        """Connections that wait for work."""
        return self._source.stats().idle if self._source is not None else 0

    def _do_get(self) -> Any:
        self._wait_for_the_first()
        connection = wait(self._pool()._lease())
        try:
            # Somebody may have become the first meanwhile.
            self._wait_for_the_first()
        except BaseException:
            self._pool()._release(connection)
            raise
        record = connection.__dict__.get("sqlalchemy_record")
        if record is not None and record[0] is self:
            return record[1]
        self._adopting = connection
        if self.initialised:
            return _ConnectionRecord(self)
        first = self._first = Deferred()
        try:
            made = _ConnectionRecord(self)
            self.initialised = True
            return made
        finally:
            self._first = None
            first.callback(None)

    def _do_return_conn(self, record: Any) -> None:
        adapted: AdaptedTxConnection | None = record.dbapi_connection
        if adapted is not None:
            self._pool()._release(adapted.connection)

    # -- ours ------------------------------------------------------------------------------------

    def _wait_for_the_first(self) -> None:
        """Until it is known what the server is; SQLAlchemy would wait on a lock that needs asyncio."""
        while not self.initialised and self._first is not None:
            waiting: Deferred[None] = Deferred()
            self._first.chainDeferred(waiting)
            wait(waiting)

    def _adopt(self, connection_record: Any) -> AdaptedTxConnection:
        """What SQLAlchemy takes for connecting: the connection just leased, or one more lease."""
        connection, self._adopting = self._adopting, None
        if connection is None:
            connection = wait(self._pool()._lease())
        connection.__dict__["sqlalchemy_record"] = self, connection_record
        return AdaptedTxConnection(connection)

    def _pool(self) -> Pool:
        if self._source is None:
            pool_size, max_overflow, timeout = self._sizes
            dialect: Any = self._dialect
            self._source = Pool(
                dialect.dbapi.dsn_of(self._given_creator),
                min_size=0,
                max_size=pool_size + max_overflow,
                acquire_timeout=timeout,
            )
            self._source.startService()
        return self._source
