"""From a DSN to an open connection: parameters, names looked up without blocking, one time-out for it all.

The pool (:mod:`cycloneish.db.postgres`) calls this for its own connections and for those of its listener and
its canceller.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from .connection import Connection
from .errors import ConnectError, ConnectionLost, DatabaseError

import psycopg2  # isort: skip  (after the connection, which says what to install where it is missing)
import psycopg2.extensions  # isort: skip

__all__ = ["connect_failure", "connect_settings", "open_connection"]


# What the server says while it starts, stops, or is full.
_PASSING = ("the database system is", "terminating connection", "too many", "remaining connection slots")
# What libpq says of a server that it will not talk to.
_TLS_REFUSALS = (
    "certificate verify failed",
    "does not match host name",
    "does not support SSL",
    "root certificate file",
)


def connect_settings(dsn: str) -> dict[str, Any]:
    """The connection parameters in *dsn*, a ``postgresql://`` URI or libpq's ``key=value`` string.

    TCP keep-alives are made to find a dead peer within about 90 s, and ``application_name`` is set,
    where the DSN says nothing else.

    :raises ValueError: when libpq does not understand the DSN; the text never holds the password.
    """
    try:
        settings: dict[str, Any] = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        # libpq's own text may quote the whole URI, password and all: not even as the cause.
        raise ValueError(
            "the database URL is not one that PostgreSQL understands; it looks like "
            "postgresql://user:password@host:5432/name"
        ) from None
    settings.setdefault("application_name", "cycloneish")
    settings.setdefault("keepalives_idle", "60")
    settings.setdefault("keepalives_interval", "10")
    settings.setdefault("keepalives_count", "3")
    return settings


def open_connection(reactor: Any, settings: dict[str, Any], timeout: float) -> Deferred[Connection]:
    """Connect to PostgreSQL.

    :param settings: what :func:`connect_settings` gave.
    :param timeout: seconds for name look-up, connecting and signing in together.
    :returns: a Deferred with the open connection.  It fails with :exc:`ConnectError` where the server
        said no, and with :exc:`ConnectionLost` where it could not be reached in time.
    """
    connection = Connection(reactor)

    def cancelled(_: object) -> None:
        over()

    result: Deferred[Connection] = Deferred(cancelled)
    pending = [result]

    def over() -> list[Deferred[Connection]]:
        """Stop the clock; the Deferred that still waits, or nothing where it was answered before."""
        if timer.active():
            timer.cancel()
        waiting = pending[:]
        pending.clear()
        if waiting and not succeeded:
            connection.close()
            looked_up.cancel()
        return waiting

    def too_late() -> None:
        for waiting in over():
            waiting.errback(ConnectionLost(f"no connection to PostgreSQL within {timeout:g} s"))

    def connect(resolved: dict[str, Any]) -> Deferred[Connection]:
        return connection.connect(**resolved)

    def opened(_: object) -> None:
        succeeded.append(True)
        for waiting in over():
            waiting.callback(connection)

    def failed(failure: Failure) -> None:
        for waiting in over():
            waiting.errback(connect_failure(failure.value))

    succeeded: list[bool] = []
    timer = reactor.callLater(timeout, too_late)
    looked_up = _resolve(reactor, settings)
    looked_up.addCallback(connect).addCallbacks(opened, failed)
    return result


def connect_failure(error: BaseException | None) -> DatabaseError:
    """What the driver says of an attempt to connect, as a refusal or as a server that is not there."""
    text = " ".join(str(error).split())
    # Only the text tells a refusal from a server that is not there (yet): libpq reports no code while
    # connecting.
    refused = "FATAL:" in text and not any(part in text for part in _PASSING)
    wrapped: DatabaseError
    if refused or any(part in text for part in _TLS_REFUSALS):
        wrapped = ConnectError(f"PostgreSQL refused the connection: {text}")
    else:
        wrapped = ConnectionLost(f"PostgreSQL cannot be reached: {text}")
    wrapped.__cause__ = error
    return wrapped


def _resolve(reactor: Any, settings: dict[str, Any]) -> Deferred[dict[str, Any]]:
    """Look host names up in a thread: libpq would do it while the reactor waits."""
    host = str(settings.get("host", ""))
    if not host or "hostaddr" in settings or host.startswith(("/", "@")) or "," in host or _is_address(host):
        return succeed(dict(settings))

    def look_up() -> dict[str, Any]:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        resolved = dict(settings, host=",".join([host] * len(addresses)), hostaddr=",".join(addresses))
        if "port" in settings:
            resolved["port"] = ",".join([str(settings["port"])] * len(addresses))
        return resolved

    return deferToThreadPool(reactor, reactor.getThreadPool(), look_up)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
