"""How one asks PostgreSQL: the query methods, and transactions.

:class:`Queries` is what :class:`cycloneish.db.postgres.Pool` and :class:`Transaction` have in common.
"""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, TypeVar, overload

from twisted.internet.defer import Deferred, fail, inlineCallbacks, maybeDeferred, succeed
from twisted.python.failure import Failure

from ..coroutines import as_deferred
from .batches import Batches
from .connection import Connection, Parameters
from .errors import CommitUnknown, ConnectionLost, QueryTimeout, TransactionRolledBack
from .many import batches_of

__all__ = ["Queries", "Row", "Savepoint", "Transaction", "named"]

_numbers = itertools.count(1)

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


@lru_cache(maxsize=256)
def _row_class(names: tuple[str, ...]) -> type[Any]:
    return namedtuple("Row", names, rename=True)


def named(**columns: Any) -> Any:
    """For *into*: rows as named tuples, ``row.name`` as well as ``row[0]``, for columns not known before.

    A column whose name is no Python name gets one by its place, such as ``_2``.
    """
    return _row_class(tuple(columns))(*columns.values())


def _all_into(kind: Callable[..., T], cursor: Any) -> list[T]:
    names = [column.name for column in cursor.description]
    if kind is named:
        return list(map(_row_class(tuple(names))._make, cursor.fetchall()))
    return [kind(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _one(cursor: Any) -> Row | None:
    row: Row | None = cursor.fetchone()
    return row


def _one_into(kind: Callable[..., T], cursor: Any) -> T | None:
    row = cursor.fetchone()
    if row is None:
        return None
    if kind is named:
        one: T = _row_class(tuple(column.name for column in cursor.description))(*row)
        return one
    return kind(**dict(zip([column.name for column in cursor.description], row, strict=True)))


def _value(cursor: Any) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


class Queries:
    """The ways to ask, shared by :class:`Pool` and :class:`Transaction`.

    In all of them *sql* has ``%s`` (or ``%(name)s``) where values go, *parameters* is the sequence (or
    mapping) of values, and *timeout* is in seconds: None for the pool's ``query_timeout``,
    ``math.inf`` for no limit.  *into* makes each row an object: a dataclass, a ``NamedTuple`` or any
    callable that takes the column names as keyword arguments, such as ``dict``; :func:`named` makes
    named tuples of whatever columns there are.
    """

    def _submit(
        self, sql: str | bytes, parameters: Parameters, collect: Callable[[Any], Any], timeout: float | None
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

    def execute_many(
        self,
        sql: str,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        batch: int = 500,
        timeout: float | None = None,
    ) -> Deferred[int]:
        """Run a statement once for each of *rows*; fires with the number of rows it changed.

        :param sql: the statement for one row.  An INSERT is sent as one VALUES with many rows, others
            several in one message (and then the number is that of the last one in each, -1 without any).
        :param rows: sequences or mappings of values; an iterator is read as the rows are sent.
        :param batch: rows in one message at most, which has a megabyte or so at most.
        :param timeout: seconds for each message.

        On a pool it is a transaction of its own: all rows or none.
        """
        raise NotImplementedError

    def stream(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        batch: int = 500,
        into: Callable[..., Any] | None = None,
        timeout: float | None = None,
    ) -> Batches:
        """A query whose rows are read batch by batch, with a cursor on the server.

        :param sql: a SELECT or VALUES; the server takes no other statement for a cursor.
        :param batch: rows in one list.
        :param timeout: seconds for each list.
        :returns: an asynchronous iterator of lists; see :class:`~cycloneish.db.postgres.Batches`.

        On a pool it takes a connection, and a transaction of its own, until it is closed.
        """
        transaction, owns = self._for_stream()
        collect = _all if into is None else partial(_all_into, into)
        return Batches(transaction, owns, sql, parameters, collect, batch, timeout)

    def _for_stream(self) -> tuple[Transaction, bool]:
        raise NotImplementedError

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
        self, sql: str | bytes, parameters: Parameters, collect: Callable[[Any], Any], timeout: float | None
    ) -> Deferred[Any]:
        if self._connection is None:
            return fail(RuntimeError("the transaction is over, or was not begun (use 'async with')"))
        return self._connection.run(sql, parameters, collect, timeout)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Begin, call ``function(transaction, *args, **kwargs)``, commit; an error rolls back.

        *function* may return a value, a Deferred or a coroutine; the Deferred fires with its result
        after the COMMIT.
        """

        def work(_: Transaction) -> Deferred[Any]:
            return (
                maybeDeferred(function, self, *args, **kwargs)
                .addCallback(as_deferred)
                .addCallbacks(
                    lambda result: self.commit().addCallback(lambda _: result),
                    lambda failure: self.rollback().addCallback(lambda _: failure),
                )
            )

        return self.begin().addCallback(work)

    @inlineCallbacks
    def execute_many(
        self,
        sql: str,
        rows: Iterable[Sequence[Any] | Mapping[str, Any]],
        *,
        batch: int = 500,
        timeout: float | None = None,
    ) -> Generator[Deferred[Any], Any, int]:
        """As :meth:`Queries.execute_many`, in this transaction."""
        if self._connection is None:
            raise RuntimeError("the transaction is over, or was not begun (use 'async with')")
        total = -1
        for message in batches_of(sql, rows, batch, self._connection.bind):
            changed = yield self._submit(message, None, _rowcount, timeout)
            total = changed if total < 0 else total + max(changed, 0)
        return max(total, 0)

    def _for_stream(self) -> tuple[Transaction, bool]:
        return self, False

    def savepoint(self) -> Savepoint:
        """A part of the transaction that can fail on its own, to be used with ``async with``.

        An exception that leaves the block undoes what the block did, and nothing else; the transaction
        goes on where the exception is caught outside of the block.  Savepoints may be nested.
        """
        return Savepoint(self)

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

    def abandon(self) -> None:
        """Roll back, from any thread, for somebody who is gone."""
        connection = self._connection
        if connection is not None:
            connection.reactor.callFromThread(self.rollback)


class Savepoint:
    """A part of a :class:`Transaction` that can be undone alone; made by :meth:`Transaction.savepoint`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._name = f"cycloneish_{next(_numbers)}"

    async def __aenter__(self) -> Savepoint:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.release()
        elif issubclass(kind, GeneratorExit):
            self.rollback()
        else:
            await self.rollback()

    def begin(self) -> Deferred[None]:
        """Set the savepoint; ``async with`` does this."""
        return self._say(f"savepoint {self._name}")

    def release(self) -> Deferred[None]:
        """Keep what was done since :meth:`begin`, as part of the transaction."""
        return self._say(f"release savepoint {self._name}")

    def rollback(self) -> Deferred[None]:
        """Undo what was done since :meth:`begin`; never fails.

        Where it cannot be undone alone, as on a lost connection, the whole transaction comes to nothing.
        """
        done: Deferred[None] = _Uncancellable()
        self._say(f"rollback to savepoint {self._name}; release savepoint {self._name}").addErrback(
            lambda _: None
        ).addCallback(done.callback)
        return done

    def _say(self, sql: str) -> Deferred[None]:
        return self._transaction._submit(sql, None, lambda _: None, None)
