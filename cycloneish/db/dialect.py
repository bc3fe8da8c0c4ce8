"""``postgresql+txpostgres``: SQLAlchemy's dialect for PostgreSQL on the Twisted reactor.

SQL, types and reflection are those of SQLAlchemy's psycopg2 dialect, since psycopg2 is underneath;
what differs is that nothing blocks.  Engines for it are made by :mod:`cycloneish.db.database`, or by
``sqlalchemy.create_engine`` and then used inside :func:`cycloneish.db.bridge.spawn`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .adapter import AdaptedTxConnection
from .bridge import wait
from .leasing import LeasingPool
from .opening import connect_settings, open_connection

import psycopg2  # isort: skip  (after those that say what to install where it is missing)
import psycopg2.extensions  # isort: skip
import psycopg2.extras  # isort: skip
from sqlalchemy.dialects import registry  # isort: skip
from sqlalchemy.dialects.postgresql.base import PGDialect  # isort: skip
from sqlalchemy.dialects.postgresql.psycopg2 import (  # isort: skip
    PGDialect_psycopg2,
    PGExecutionContext_psycopg2,
)
from sqlalchemy.pool import Pool as SQLAlchemyPool  # isort: skip

__all__ = ["DBAPI", "PGDialect_txpostgres", "register"]

_CONNECT_TIMEOUT = 10.0
# Calls of functions, and FOR UPDATE and its like.  Words in a literal may match as well, which does no harm.
_MORE_THAN_READING = re.compile(r"[\w\"]\(|\bFOR (?:UPDATE|NO KEY|SHARE|KEY)")


class DBAPI:
    """psycopg2 as far as SQLAlchemy looks at it, with a ``connect`` that does not block."""

    paramstyle = "pyformat"
    __version__: str = vars(psycopg2)["__version__"]

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg2, name)

    def __init__(self) -> None:
        self._tells = False

    def connect(self, *args: Any, **settings: Any) -> Any:
        """Open a connection that no pool of ours looks after (for SQLAlchemy's ``NullPool`` and the like)."""
        dsn = psycopg2.extensions.make_dsn(*args, **settings)
        if self._tells:
            return dsn
        from twisted.internet import reactor

        return AdaptedTxConnection(wait(open_connection(reactor, connect_settings(dsn), _CONNECT_TIMEOUT)))

    def dsn_of(self, creator: Callable[[], Any]) -> str:
        """The DSN of the connections that *creator*, a function of SQLAlchemy's, would open."""
        self._tells = True
        try:
            dsn: str = creator()
            return dsn
        finally:
            self._tells = False


class _ExecutionContext(PGExecutionContext_psycopg2):
    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor(server_side=True)


class PGDialect_txpostgres(PGDialect_psycopg2):
    """The dialect; see the module.

    :param lazy_begin: leave BEGIN out for plain queries before the first other statement of a transaction,
        where that makes no difference; False to begin with the first statement of any kind.
    """

    driver = "txpostgres"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    supports_server_side_cursors = True
    supports_native_uuid = True
    # executemany adds the counts up.
    supports_sane_multi_rowcount = True
    # Connections of ours have bytea as bytes.
    returns_native_bytes = True
    execution_ctx_cls = _ExecutionContext

    def __init__(self, use_native_hstore: bool = False, lazy_begin: bool = True, **kwargs: Any) -> None:
        self._lazy_begin = lazy_begin
        # Without psycopg2's own hstore, whose oid costs a query for each connection, SQLAlchemy reads it.
        if use_native_hstore:
            raise ValueError("use_native_hstore is not there: SQLAlchemy itself reads and writes hstore")
        super().__init__(use_native_hstore=False, **kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def import_dbapi(cls) -> Any:
        """The driver."""
        return DBAPI()

    @classmethod
    def get_pool_class(cls, _url: Any) -> type[SQLAlchemyPool]:
        """Connections come from a pool of ours."""
        return LeasingPool

    def initialize(self, connection: Any) -> None:
        """Ask the server what it is, once for an engine."""
        PGDialect.initialize(self, connection)
        self._has_native_hstore = False

    def on_connect(self) -> Any:
        """What is done to each connection once."""
        encoding, loads = self.client_encoding, self._json_deserializer
        if encoding is None and loads is None:
            return None

        def set_up(adapted: AdaptedTxConnection) -> None:
            if encoding is not None:
                # psycopg2 cannot set it in its asynchronous mode, but follows what the server says.
                cursor = adapted.cursor()
                cursor.execute("select set_config('client_encoding', %s, false)", (encoding,))
                adapted.commit()
            if loads is not None:
                raw = adapted.connection._connection
                psycopg2.extras.register_default_json(raw, loads=loads)
                psycopg2.extras.register_default_jsonb(raw, loads=loads)

        return set_up

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """Of the transactions to come; one in which only settings were read is left, as with psycopg2."""
        dbapi_connection.rollback()
        dbapi_connection.autocommit = level == "AUTOCOMMIT"
        dbapi_connection.isolation = None if level == "AUTOCOMMIT" else level

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Run a statement; say whether it is a plain query."""
        reads = (
            self._lazy_begin
            and context is not None
            and context.compiled is not None
            and self.default_isolation_level in ("READ COMMITTED", "READ UNCOMMITTED")
            and _only_reads(context.compiled)
        )
        cursor.execute(statement, parameters, reads=reads)

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close without waiting."""
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        """Our connection."""
        return connection.driver_connection

    # psycopg2 has two-phase commits as methods of a blocking connection; PostgreSQL has statements.

    def do_begin_twophase(self, connection: Any, xid: Any) -> None:
        """BEGIN."""
        self.do_begin(connection.connection)  # type: ignore[no-untyped-call]

    do_prepare_twophase = PGDialect.do_prepare_twophase
    do_rollback_twophase = PGDialect.do_rollback_twophase
    do_commit_twophase = PGDialect.do_commit_twophase
    do_recover_twophase = PGDialect.do_recover_twophase


def _only_reads(compiled: Any) -> bool:
    """Whether a statement is a SELECT that locks no rows and calls no functions, which might do anything."""
    known: bool | None = compiled.__dict__.get("cycloneish_only_reads")
    if known is None:
        sql = getattr(compiled, "string", "") or ""
        known = (
            bool(getattr(compiled.statement, "is_select", False))
            and sql.startswith("SELECT")
            and _MORE_THAN_READING.search(sql) is None
        )
        compiled.cycloneish_only_reads = known
    return known


dialect = PGDialect_txpostgres


def register() -> None:
    """Make ``postgresql+txpostgres`` known where no entry point does, as in a checkout."""
    registry.register("postgresql.txpostgres", __name__, "PGDialect_txpostgres")
