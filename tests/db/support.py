"""A real PostgreSQL for tests: one private server for the whole run, a fresh database for each test.

Any test may use :class:`DatabaseTestCase`, or call :func:`fresh_database` for a DSN of its own.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import tempfile
import time
from typing import Any
from urllib.parse import urlencode

import psycopg2
import psycopg2.extensions
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cycloneish.db.cluster import Cluster, _has_processes
from cycloneish.db.postgres import Pool

# Durability is not what these tests are about, and the disk is slow.
FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}

_server: tuple[Cluster, str] | None = None
_numbers = itertools.count(1)


def shared_server() -> tuple[Cluster, str]:
    """The run's server and the DSN of its first database; started at the first call."""
    global _server
    if _server is None:
        directory = tempfile.mkdtemp(prefix="cycloneish-tests-")
        cluster = Cluster(directory, settings=FAST)
        atexit.register(_remove, cluster, directory)
        _server = cluster, cluster.start()
    return _server


def _remove(cluster: Cluster, directory: str) -> None:
    cluster.stop()
    shutil.rmtree(directory, ignore_errors=True)


def fresh_database() -> str:
    """The DSN of an empty database that nobody else uses."""
    _, dsn = shared_server()
    name = f"test_{next(_numbers)}"
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name} strategy file_copy")
    finally:
        connection.close()
    return dsn.replace("dbname=postgres", f"dbname={name}")


def fresh_url() -> str:
    """As :func:`fresh_database`, as a URL."""
    parts = psycopg2.extensions.parse_dsn(fresh_database())
    return f"postgresql:///{parts['dbname']}?" + urlencode({"host": parts["host"], "user": parts["user"]})


def ask(dsn: str, sql: str, *parameters: Any) -> Any:
    """The first value of a query, on a connection of its own and without the code under test."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        connection.close()


def busy_backends(dsn: str) -> int:
    """How many other connections of this database are in the middle of a statement."""
    return int(
        ask(
            dsn,
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and state <> 'idle' and backend_type = 'client backend'",
        )
    )


def kill(cluster: Cluster, number: int = signal.SIGKILL) -> int:
    """Kill the server of *cluster* and wait until it and its children are dead; its process id."""
    pid = cluster.pid()
    assert pid is not None
    os.kill(pid, number)
    _, data = cluster._find()
    while _has_processes(data):
        time.sleep(0.01)
    return pid


def sleep(seconds: float) -> Deferred[None]:
    """A Deferred that fires after *seconds*."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait until *condition* is true; fail after *seconds*."""
    waited = 0.0
    while not condition():
        if waited > seconds:
            raise AssertionError(f"did not come true within {seconds} s: {condition}")
        await sleep(0.02)
        waited += 0.02


class DatabaseTestCase(TestCase):
    """Tests with an empty database: ``self.dsn``, and ``self.make_pool()`` for a pool stopped afterwards."""

    timeout = 60
    dsn: str

    def setUp(self) -> None:
        self.dsn = fresh_database()

    def make_pool(self, dsn: Any = None, **options: Any) -> Pool:
        pool = Pool(dsn or self.dsn, **options)
        pool.startService()
        self.addCleanup(pool.stopService)
        return pool
