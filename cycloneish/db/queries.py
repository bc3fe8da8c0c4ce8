"""How one asks PostgreSQL: the query methods, and transactions.

:class:`Queries` is what :class:`cycloneish.db.postgres.Pool` and :class:`Transaction` have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from .connection import Connection, Parameters
from .errors import CommitUnknown, ConnectionLost, QueryTimeout, TransactionRolledBack

__all__ = ["Queries", "Row", "Transaction"]

T = TypeVar("T")
Row = tuple[Any, ...]


class _Uncancellable(Deferred[T]):
    """A Deferred for work that has to come to its end: COMMIT and ROLLBACK."""

    def cancel(self) -> None:
        """Nothing: the outcome of what was sent matters more than the wish to leave."""


def _rowcount(cursor: Any) -> int:
    return int(cursor.rowcount)


def _status(cursor: Any) -> str:
    return str(cursor.statusmessage)


def _all(cursor: Any) -> list[Row]:
    rows: list[Row] = cursor.fetchall()
    return rows


def _all_into(kind: Callable[..., T], cursor: Any) -> list[T]:
    names = [column.name for column in cursor.description]
    return [kind(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _one(cursor: Any) -> Row | None:
    row: Row | None = cursor.fetchone()
    return row


def _one_into(kind: Callable[..., T], cursor: Any) -> T | None:
    row = cursor.fetchone()
    if row is None:
        return None
    return kind(**dict(zip([column.name for column in cursor.description], row, strict=True)))


def _value(cursor: Any) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


class Queries:
    """The ways to ask, shared by :class:`Pool` and :class:`Transaction`.

    In all of them *sql* has ``%s`` (or ``%(name)s``) where values go, *parameters* is the sequence (or
    mapping) of values, and *timeout* is in seconds: None for the pool's ``query_timeout``,
    ``math.inf`` for no limit.  *into* makes each row an object: a dataclass, a ``NamedTuple`` or any
    callable that takes the column names as keyword arguments.
    """

    def _submit(
        self, sql: str, parameters: Parameters, collect: Callable[[Any], Any], timeout: float | None
    ) -> Deferred[Any]:
        raise NotImplementedError

    def execute(
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Deferred[int]:
        """Run a statement; fires with the number of rows it changed (-1 where that makes no sense)."""
        return self._submit(sql, parameters, _rowcount, timeout)

    @overload
    def fetch_all(
        self, sql: str, parameters: Parameters = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> Deferred[list[T]]: ...
    @overload
    def fetch_all(
        self, sql: str, parameters: Parameters = None, *, into: None = None, timeout: float | None = None
    ) -> Deferred[list[Row]]: ...
    def fetch_all(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Deferred[Any]:
        """Run a query; fires with the list of its rows, as tuples or as *into* makes them."""
        return self._submit(sql, parameters, _all if into is None else partial(_all_into, into), timeout)

    @overload
    def fetch_one(
        self, sql: str, parameters: Parameters = None, *, into: Callable[..., T], timeout: float | None = None
    ) -> Deferred[T | None]: ...
    @overload
    def fetch_one(
        self, sql: str, parameters: Parameters = None, *, into: None = None, timeout: float | None = None
    ) -> Deferred[Row | None]: ...
    def fetch_one(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Deferred[Any]:
        """Run a query; fires with its first row, or None where it has none."""
        return self._submit(sql, parameters, _one if into is None else partial(_one_into, into), timeout)

    def fetch_value(
        self, sql: str, parameters: Parameters = None, *, timeout: float | None = None
    ) -> Deferred[Any]:
        """Run a query; fires with the first column of its first row, or None where it has no row."""
        return self._submit(sql, parameters, _value, timeout)

    def notify(self, channel: str, payload: str = "") -> Deferred[None]:
        """Send *payload* (less than 8,000 bytes) to everyone who listens to *channel*.

        In a transaction it goes out with the COMMIT, or not at all.
        """
        return self._submit("select pg_notify(%s, %s)", (channel, payload), lambda _: None, None)


class Transaction(Queries):
    """Statements on one connection between BEGIN and COMMIT or ROLLBACK; made by :meth:`Pool.transaction`.

    ``async with`` begins it; leaving the block commits, an exception or a cancellation rolls back.
    Statements are sent one after the other, also where they are not waited for.
    """

    def __init__(
        self,
        begin: str,
        lease: Callable[[], Deferred[Connection]],
        release: Callable[[Connection], None],
    ) -> None:
        self._lease = lease
        self._release = release
        self._begin = begin
        self._connection: Connection | None = None

    async def __aenter__(self) -> Transaction:
        return await self.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.commit()
        elif issubclass(kind, GeneratorExit):
            # The coroutine is being thrown away and must not wait any more.
            self.rollback()
        else:
            await self.rollback()

    def begin(self) -> Deferred[Transaction]:
        """Take a connection and begin; ``async with`` does this."""
        return self._lease().addCallback(self.begin_on)

    def begin_on(self, connection: Connection) -> Deferred[Transaction]:
        """Begin on a connection that was leased already (the pool's own set-up)."""
        self._connection = connection
        began = connection.run(self._begin, None, lambda _: self)
        return began.addErrback(self._not_begun)

    def _not_begun(self, failure: Failure) -> Deferred[Any]:
        return self.rollback().addCallback(lambda _: failure)

    def _submit(
        self, sql: str, parameters: Parameters, collect: Callable[[Any], Any], timeout: float | None
    ) -> Deferred[Any]:
        if self._connection is None:
            return fail(RuntimeError("the transaction is over, or was not begun (use 'async with')"))
        return self._connection.run(sql, parameters, collect, timeout)

    def commit(self) -> Deferred[None]:
        """Commit and give the connection back; ``async with`` does this at the end of the block.

        Fails with :exc:`~cycloneish.db.errors.CommitUnknown` where the answer did not come, and with
        :exc:`~cycloneish.db.errors.TransactionRolledBack` where the server rolled back instead.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return fail(RuntimeError("the transaction is over already"))
        if connection.lost is not None:
            return fail(ConnectionLost(f"not committed: {connection.lost}"))
        done: Deferred[None] = _Uncancellable()
        connection.run("commit", None, _status).addCallbacks(
            self._committed, self._commit_failed, errbackArgs=(connection,)
        ).addCallbacks(done.callback, done.errback)
        self._release(connection)
        return done

    def _committed(self, status: str) -> None:
        if status.upper() != "COMMIT":
            raise TransactionRolledBack(
                "the transaction was rolled back: a statement in it had failed and the error was swallowed"
            )

    def _commit_failed(self, failure: Failure, connection: Connection) -> None:
        if not isinstance(failure.value, ConnectionLost | QueryTimeout):
            failure.raiseException()
        connection.abort("no answer to COMMIT")
        raise CommitUnknown(
            "the connection to PostgreSQL was lost before COMMIT was answered; "
            "look whether the changes are there before doing them again"
        ) from failure.value

    def rollback(self) -> Deferred[None]:
        """Roll back and give the connection back; never fails (a lost connection has rolled back)."""
        connection, self._connection = self._connection, None
        if connection is None or connection.lost is not None:
            return succeed(None)
        done: Deferred[None] = _Uncancellable()

        def failed(failure: Failure) -> None:
            connection.abort(f"ROLLBACK failed: {failure.getErrorMessage()}")

        connection.run("rollback", None, lambda _: None).addErrback(failed).addCallback(done.callback)
        self._release(connection)
        return done
