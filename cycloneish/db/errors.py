"""What the database rooms raise, apart from the errors PostgreSQL itself reports.

An error in a statement (a unique key, a syntax error) is the driver's own exception, such as
``psycopg2.errors.UniqueViolation``; the common ones are handed on by :mod:`cycloneish.db.postgres`.
The classes here are about the way to the server: no connection, a lost one, no time left.
Loads no driver, so that an application can name them without the extra installed.
"""

from __future__ import annotations

__all__ = [
    "CommitUnknown",
    "ConnectError",
    "ConnectionLost",
    "DatabaseError",
    "EmbeddedServerError",
    "MissingDependency",
    "PoolClosed",
    "PoolTimeout",
    "QueryTimeout",
    "SchemaBehind",
    "TransactionRolledBack",
]


class MissingDependency(ImportError):
    """An optional library is not installed; the text names the command that installs it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed. Install it with: pip install 'cycloneish[{extra}]'", name=library
        )


class DatabaseError(Exception):
    """Base of everything in this module that a running pool can raise."""


class ConnectError(DatabaseError):
    """The server refused us for a reason that waiting does not mend (password, unknown database)."""


class ConnectionLost(DatabaseError):
    """The connection went away while a statement was under way or a transaction was open.

    Nothing is retried: the statement may or may not have been carried out.  The pool reconnects by
    itself, and the next call gets a working connection as soon as the server is back.
    """


class CommitUnknown(ConnectionLost):
    """The connection went away between COMMIT and its answer: the transaction may have happened."""


class PoolTimeout(DatabaseError):
    """No connection became free, or none could be made, within the pool's ``acquire_timeout``."""


class PoolClosed(DatabaseError):
    """The pool is stopped, is being stopped, or was never started."""


class QueryTimeout(DatabaseError):
    """A statement took longer than its time-out; it was cancelled on the server."""


class SchemaBehind(DatabaseError):
    """The database lacks migrations that the program needs."""


class TransactionRolledBack(DatabaseError):
    """COMMIT was answered with a rollback.

    PostgreSQL does that when an earlier statement of the transaction failed and the error was
    swallowed inside the block.
    """


class EmbeddedServerError(DatabaseError):
    """The private PostgreSQL server could not be made, started or stopped; the text says why."""
