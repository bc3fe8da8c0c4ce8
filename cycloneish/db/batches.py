"""Results that do not fit into memory: a cursor on the server, read batch by batch.

Made by ``pool.stream(…)`` and ``transaction.stream(…)``; :mod:`cycloneish.db.streams` is the same for
SQLAlchemy's statements.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from .connection import Parameters

if TYPE_CHECKING:
    from .queries import Transaction

__all__ = ["Batches"]

_numbers = itertools.count(1)


class Batches:
    """The rows of a query in lists of at most *batch*, one list in memory at a time::

        async with pool.stream("select * from article") as batches:
            async for rows in batches:
                self.write(…)
                await self.flush()

    The query is sent with the first list that is asked for, and the server makes the next one only when it
    is asked for.  Until the last one the connection stays taken.  Code without ``async`` calls
    :meth:`fetch` until it fires with an empty list, or :meth:`close`.
    """

    # For __del__, where __init__ was not finished.
    _owns = _declared = False

    def __init__(
        self,
        transaction: Transaction,
        owns: bool,
        sql: str,
        parameters: Parameters,
        collect: Callable[[Any], list[Any]],
        batch: int,
        timeout: float | None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch has one row at least, not {batch}")
        self._transaction = transaction
        # Whether the transaction is there for this stream alone, and ends with it.
        self._owns = owns
        self._name = f"cycloneish_{next(_numbers)}"
        self._fetch_sql = f"fetch {batch} from {self._name}"
        # The line end is for a query that ends in a comment.
        query = sql.rstrip().rstrip(";")
        self._declare = f"declare {self._name} no scroll cursor for {query}\n;{self._fetch_sql}"
        self._parameters = parameters
        self._collect = collect
        self._batch = batch
        self._timeout = timeout
        self._declared = False
        self._closed = False

    def fetch(self) -> Deferred[list[Any]]:
        """Fires with the next rows, and with an empty list at the end.

        Cancelling it cancels the query on the server and closes the stream.
        """
        if self._closed:
            return succeed([])
        if self._declared:
            return self._send(self._fetch_sql, None)
        self._declared = True
        if not self._owns:
            return self._send(self._declare, self._parameters)
        return (
            self._transaction.begin()
            .addErrback(self._not_begun)
            .addCallback(lambda _: self._send(self._declare, self._parameters))
        )

    def _not_begun(self, failure: Failure) -> Failure:
        self._closed = True
        return failure

    def _send(self, sql: str, parameters: Parameters) -> Deferred[list[Any]]:
        sent = self._transaction._submit(sql, parameters, self._collect, self._timeout)
        return sent.addCallbacks(self._fetched, self._failed)

    def _fetched(self, rows: list[Any]) -> Any:
        if len(rows) == self._batch:
            return rows
        self._closed = True
        ended: Deferred[Any] = self._transaction.commit() if self._owns else self._close_cursor()
        return ended.addCallback(lambda _: rows)

    def _failed(self, failure: Failure) -> Any:
        self._closed = True
        if not self._owns:
            return failure
        return self._transaction.rollback().addCallback(lambda _: failure)

    def _close_cursor(self) -> Deferred[Any]:
        return self._transaction._submit(f"close {self._name}", None, lambda _: None, None)

    def close(self) -> Deferred[None]:
        """Close the cursor; a stream of the pool gives its connection back."""
        if self._closed:
            return succeed(None)
        self._closed = True
        if not self._declared:
            return succeed(None)
        if self._owns:
            return self._transaction.rollback()
        # In a failed transaction there is no cursor any more.
        return self._close_cursor().addErrback(lambda _: None)

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> list[Any]:
        rows = await self.fetch()
        if not rows:
            raise StopAsyncIteration
        return rows

    async def __aenter__(self) -> Batches:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close()
        if kind is None or not issubclass(kind, GeneratorExit):
            await closing

    def __del__(self) -> None:
        # A loop that was left early, outside of 'async with'. The collector may run in any thread.
        if self._owns and self._declared and not self._closed:
            self._transaction.abandon()
