"""A connection of ours in the shape that SQLAlchemy expects of a driver (PEP 249).

The methods wait for Deferreds through :mod:`cycloneish.db.bridge`, so they block the greenlet that calls them
and never the reactor.  BEGIN travels with the first statement of a transaction and costs no round trip
of its own; a transaction without a statement costs none at all.  Made by :mod:`cycloneish.db.leasing`.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from .bridge import wait
from .connection import Connection
from .errors import CommitUnknown, ConnectionLost, QueryTimeout, TransactionRolledBack

from sqlalchemy.engine import AdaptedConnection  # isort: skip  (after the bridge, which names the extra)

__all__ = ["AdaptedCursor", "AdaptedTxConnection", "StreamCursor"]

log = logging.getLogger("cycloneish.db")

#: Rows that travel with the opening of a stream; SQLAlchemy asks for more in growing batches.
FIRST_ROWS = 50

# None is the server's own level; the dialect has looked what that is.
_EACH_FOR_ITSELF = (None, "READ COMMITTED", "READ UNCOMMITTED")

_Row = tuple[Any, ...]
_Answer = tuple[Any, int, list[_Row] | None]
_numbers = itertools.count(1)


def _collect(cursor: Any) -> _Answer:
    """The description, the row count and the rows of an answer."""
    description = cursor.description
    return description, cursor.rowcount, cursor.fetchall() if description is not None else None


class AdaptedCursor:
    """A cursor whose rows are here when ``execute`` returns."""

    server_side = False

    __slots__ = ("_adapted", "_rows", "arraysize", "description", "lastrowid", "rowcount")

    def __init__(self, adapted: AdaptedTxConnection) -> None:
        self._adapted = adapted
        self._rows: deque[_Row] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: Any = None
        self.arraysize = 1

    @property
    def connection(self) -> AdaptedTxConnection:
        """What it was made by (an extension of PEP 249)."""
        return self._adapted

    def execute(self, sql: str, parameters: Any = None, *, reads: bool = False) -> None:
        """Send a statement and wait for the whole answer.

        :param reads: whether it is known to need no transaction where none is open.
        """
        self.description, self.rowcount, rows = self._adapted.ask(sql, parameters, reads)
        self._rows = deque(rows) if rows else deque()

    def executemany(self, sql: str, sequence: Sequence[Any]) -> None:
        """Send a statement once for each set of parameters; the row counts are added up."""
        total = 0
        for parameters in sequence:
            _, count, _ = self._adapted.ask(sql, parameters)
            total = -1 if count < 0 or total < 0 else total + count
        self.description = None
        self.rowcount = total
        self._rows = deque()

    def fetchone(self) -> _Row | None:
        """The next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[_Row]:
        """The next *size* rows, or what is left."""
        rows = self._rows
        return [rows.popleft() for _ in range(min(self.arraysize if size is None else size, len(rows)))]

    def fetchall(self) -> list[_Row]:
        """The rows that are left."""
        rows, self._rows = list(self._rows), deque()
        return rows

    def __iter__(self) -> Iterator[_Row]:
        while self._rows:
            yield self._rows.popleft()

    def setinputsizes(self, *sizes: Any) -> None:
        """Nothing: the server works types out (PEP 249 allows that)."""

    def setoutputsize(self, *sizes: Any) -> None:
        """Nothing."""

    def nextset(self) -> None:
        """None: there is one result for each statement."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """For SQLAlchemy's own asyncio layer."""


class StreamCursor(AdaptedCursor):
    """A cursor on the server: ``fetchmany`` brings the next batch, and no more is ever in memory."""

    server_side = True

    __slots__ = ("_name", "_open", "_transaction")

    def __init__(self, adapted: AdaptedTxConnection) -> None:
        super().__init__(adapted)
        self._name = f"cycloneish_{next(_numbers)}"
        self._open = False
        self._transaction = -1

    def execute(self, sql: str, parameters: Any = None, *, reads: bool = False) -> None:
        """Open the cursor; the description and the first rows come with it."""
        adapted = self._adapted
        # Without a transaction the cursor would be gone with its statement.
        hold = " with hold" if adapted.autocommit else ""
        declare = f"declare {self._name} no scroll cursor{hold} for {sql.rstrip().rstrip(';')}"
        self.description, self.rowcount, rows = adapted.ask(
            f"{declare};fetch {FIRST_ROWS} from {self._name}", parameters
        )
        self.rowcount = -1
        self._rows = deque(rows or ())
        self._open = len(self._rows) == FIRST_ROWS
        self._transaction = adapted.transactions
        if hold and not self._open:
            # Nothing else would ever end it.
            self._open = True
            self._send_close()

    def executemany(self, sql: str, sequence: Sequence[Any]) -> None:
        """Not with a cursor on the server."""
        raise NotImplementedError("a cursor on the server takes one set of parameters")

    def _fetch(self, count: str, wanted: int | None) -> None:
        _, _, rows = self._adapted.ask(f"fetch {count} from {self._name}", None)
        self._rows.extend(rows or ())
        if wanted is None or len(rows or ()) < wanted:
            self._send_close()

    def fetchone(self) -> _Row | None:
        """The next row, or None."""
        if not self._rows and self._open:
            self._fetch(str(FIRST_ROWS), FIRST_ROWS)
        return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[_Row]:
        """The next *size* rows, or what is left."""
        size = self.arraysize if size is None else size
        missing = size - len(self._rows)
        if missing > 0 and self._open:
            self._fetch(str(missing), missing)
        return super().fetchmany(size)

    def fetchall(self) -> list[_Row]:
        """The rows that are left, all of them."""
        if self._open:
            self._fetch("all", None)
        return super().fetchall()

    def __iter__(self) -> Iterator[_Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Have the server forget the cursor; not waited for."""
        super().close()
        self._send_close()

    def _send_close(self) -> None:
        adapted = self._adapted
        was_open, self._open = self._open, False
        if was_open and adapted.connection.lost is None and self._transaction == adapted.transactions:
            # In a transaction that has failed this fails too, and the cursor is gone anyway.
            closing = adapted.connection.run(f"close {self._name}", None, lambda _: None)
            closing.addErrback(lambda _: None)


class AdaptedTxConnection(AdaptedConnection):
    """A leased :class:`~cycloneish.db.connection.Connection` as SQLAlchemy's dialect sees it.

    :ivar autocommit: whether statements stand alone rather than in a transaction.
    :ivar isolation: for the next BEGIN; None for the server's default.
    :ivar transactions: counts the transactions that were ended.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.connection = connection
        self.autocommit = False
        self.isolation: str | None = None
        self.readonly = False
        self.deferrable = False
        self.transactions = 0
        self._begun = False

    # SQLAlchemy calls these two by name.
    @property
    def driver_connection(self) -> Connection:
        """Our own connection."""
        return self.connection

    @property
    def closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self.connection.lost is not None

    @property
    def notices(self) -> list[str]:
        """What the server had to say besides its answers."""
        raw = self.connection._connection
        return raw.notices if raw is not None else []

    def cursor(self, name: str | None = None, *, server_side: bool = False) -> AdaptedCursor:
        """A cursor; with a *name* one on the server."""
        return StreamCursor(self) if name is not None or server_side else AdaptedCursor(self)

    def ask(self, sql: str, parameters: Any, reads: bool = False) -> _Answer:
        """Send a statement, with BEGIN before it where a transaction has to begin, and wait.

        Where each statement sees what is committed by then (READ COMMITTED), one that only reads is the same
        before BEGIN as after it: a transaction that does nothing else never begins.
        """
        begins = not (self._begun or self.autocommit)
        if begins and reads and self.isolation in _EACH_FOR_ITSELF and not (self.readonly or self.deferrable):
            begins = False
        if begins:
            sql = f"{self._begin()};{sql}"
        try:
            answer: _Answer = wait(self.connection.run(sql, parameters, _collect))
        except BaseException:
            if begins:
                # A cancelled statement may still run; to roll back once too often does no harm.
                self._begun = self.connection.lost is None and (
                    self.connection.busy or self.connection.in_transaction
                )
            raise
        if begins:
            self._begun = True
        return answer

    def _begin(self) -> str:
        begin = "begin"
        if self.isolation is not None:
            begin += f" isolation level {self.isolation}"
        if self.readonly:
            begin += " read only"
        if self.deferrable:
            begin += " deferrable"
        return begin

    def commit(self) -> None:
        """Commit, and do not let go before the server has answered."""
        if not self._begun:
            return
        self._ended()
        if self.connection.lost is not None:
            raise ConnectionLost(f"not committed: {self.connection.lost}")
        try:
            status: str = wait(_to_the_end(self.connection.run("commit", None, lambda c: c.statusmessage)))
        except (ConnectionLost, QueryTimeout) as error:
            self.connection.abort("no answer to COMMIT")
            raise CommitUnknown(
                "the connection to PostgreSQL was lost before COMMIT was answered; "
                "look whether the changes are there before doing them again"
            ) from error
        if status.upper() != "COMMIT":
            raise TransactionRolledBack(
                "the transaction was rolled back: a statement in it had failed and the error was swallowed"
            )

    def rollback(self) -> None:
        """Roll back; a lost connection has done so."""
        if not self._begun:
            return
        self._ended()
        connection = self.connection
        if connection.lost is not None:
            return
        try:
            wait(_to_the_end(connection.run("rollback", None, lambda _: None)))
        except Exception as error:
            connection.abort(f"ROLLBACK failed: {error}")

    def _ended(self) -> None:
        self._begun = False
        self.transactions += 1

    def close(self) -> None:
        """End the connection to the server; a pool gives it back instead."""
        self.connection.abort("the connection was closed")

    terminate = close


class _ToTheEnd(Deferred[Any]):
    """A Deferred for COMMIT and ROLLBACK: what was sent has an outcome, whoever wants to leave."""

    def cancel(self) -> None:
        """Nothing."""


def _to_the_end(deferred: Deferred[Any]) -> Deferred[Any]:
    done = _ToTheEnd()
    deferred.addCallbacks(done.callback, done.errback)
    return done
