"""PostgreSQL that is killed, queries that are cancelled, a query that sleeps: each under load, and counted.

The suite (:mod:`tests.faults.test_postgres`) and ``python -m tests.faults`` call these and judge the reports.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.threads import deferToThread

from cycloneish.db.cluster import Cluster
from cycloneish.db.errors import CommitUnknown, DatabaseError
from cycloneish.db.postgres import Error, Pool
from cycloneish.httpserver import HTTPServer
from cycloneish.web import Application, RequestHandler
from tests.db.support import ask, busy_backends, kill, sleep, until

from .client import Client

ACQUIRE_TIMEOUT = 3.0
QUERY_TIMEOUT = 3.0
#: The longest that a request may take: waiting for a connection, the statements of the transaction, and
#: the second of precision that the pool's sweep has.
LONGEST_REQUEST = ACQUIRE_TIMEOUT + QUERY_TIMEOUT + 1.0


class _Handler(RequestHandler):
    @property
    def pool(self) -> Pool:
        pool: Pool = self.application.settings["pool"]
        return pool


class Write(_Handler):
    """Stores a number twice in one transaction, or once without; 200 says that it is there."""

    async def get(self, kind: str, number: str) -> None:
        try:
            if kind == "tx":
                async with self.pool.transaction() as tx:
                    await tx.execute("insert into first values (%s)", (int(number),))
                    await tx.execute("insert into second values (%s)", (int(number),))
            else:
                await self.pool.execute("insert into first values (%s)", (int(number),))
        except (DatabaseError, Error) as error:
            self.set_status(500 if isinstance(error, CommitUnknown) else 503)
            self.write(type(error).__name__)
        else:
            self.write("stored")


class Read(_Handler):
    async def get(self) -> None:
        row = await self.pool.fetch_one("select n from series where n = %s", (42,))
        self.write({"n": row[0]})


class Sleep(_Handler):
    async def get(self) -> None:
        await self.pool.execute("select pg_sleep(2)")
        self.write("slept")


class Site:
    """A pool, an application on it and a port; ``async with`` starts and stops them."""

    def __init__(self, reactor: Any, dsn: str, **options: Any) -> None:
        self.reactor = reactor
        self.pool = Pool(dsn, **options)
        routes = [(r"/write/(tx|one)/([0-9]+)", Write), (r"/read", Read), (r"/sleep", Sleep)]
        self.server = HTTPServer(Application(routes, pool=self.pool, log_function=lambda handler: None))
        self.port = 0
        self.clients: list[Client] = []

    async def __aenter__(self) -> Site:
        self.pool.startService()
        await self.pool.when_ready()
        self.port = self.server.listen(0, "127.0.0.1").getHost().port
        return self

    async def client(self) -> Client:
        client = await Client.connect(self.reactor, self.port)
        self.clients.append(client)
        return client

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.transport.abortConnection()
        await self.server.stop()
        await self.pool.stopService()


@dataclass
class KillReport:
    """What a run of :func:`kill_under_load` saw; times in seconds."""

    kills: int = 0
    acknowledged: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    half_transactions: int = 0
    longest_request: float = 0.0
    back_after: list[float] = field(default_factory=list)
    leaked_slots: int = 0
    leaked_descriptors: int = 0
    backends: int = 0


async def kill_under_load(
    reactor: Any, cluster: Cluster, dsn: str, rounds: int, workers: int = 16, load: float = 0.4
) -> KillReport:
    """Kill the server *rounds* times while *workers* write through HTTP, and start it again each time."""
    report = KillReport()
    ask(dsn, "create table first (n int primary key); create table second (n int primary key); select 1")
    stored: dict[str, list[int]] = {"tx": [], "one": []}
    numbers = iter(range(10**9))
    stop = False
    last_success = 0.0
    options = {"acquire_timeout": ACQUIRE_TIMEOUT, "query_timeout": QUERY_TIMEOUT}

    async def work(site: Site) -> None:
        nonlocal last_success
        client = await site.client()
        while not stop:
            number = next(numbers)
            kind = "tx" if number % 2 else "one"
            begun = time.monotonic()
            status, body = await client.get(f"/write/{kind}/{number}")
            ended = time.monotonic()
            report.longest_request = max(report.longest_request, ended - begun)
            report.answers[body.decode()] += 1
            if status == 200:
                stored[kind].append(number)
                last_success = begun
            else:
                await sleep(0.01)

    async with Site(reactor, dsn, min_size=2, max_size=10, **options) as site:
        await sleep(0)
        before = len(os.listdir("/proc/self/fd"))
        working = [Deferred.fromCoroutine(work(site)) for _ in range(workers)]
        for number in range(rounds):
            await sleep(load)
            how = signal.SIGKILL if number % 2 else signal.SIGQUIT
            await deferToThread(kill, cluster, how)
            await sleep(0.1 * (number % 3))
            await deferToThread(cluster.start)
            ready = time.monotonic()
            report.kills += 1
            await until(lambda ready=ready: last_success > ready, 20.0)
            report.back_after.append(time.monotonic() - ready)
        await sleep(load)
        stop = True
        await gatherResults(working)
        for client in site.clients:
            client.transport.abortConnection()
        await until(lambda: site.pool.stats().in_use == 0 and site.pool.stats().opening == 0)
        stats = site.pool.stats()
        report.leaked_slots = stats.in_use + stats.waiting
        # One pool connection is one descriptor of libpq and one of ours.
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2 * stats.size, 5.0)
        report.leaked_descriptors = max(0, len(os.listdir("/proc/self/fd")) - before - 2 * stats.size)
        report.backends = _backends(dsn) - stats.size
    report.acknowledged = len(stored["tx"]) + len(stored["one"])
    report.missing = ask(
        dsn,
        "select count(*) from unnest(%s) n where n not in (select n from first)",
        stored["tx"] + stored["one"] or [-1],
    )
    # In a transaction both tables have it, acknowledged or not; odd numbers are the transactions.
    report.half_transactions = ask(
        dsn,
        "select (select count(*) from (select n from first where n % 2 = 1 except select n from second) a) "
        "+ (select count(*) from (select n from second except select n from first) b)",
    )
    return report


def _backends(dsn: str) -> int:
    """Other connections to this database."""
    return int(
        ask(
            dsn,
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid() and backend_type = 'client backend'",
        )
    )


@dataclass
class CancelReport:
    """What a run of :func:`cancel_running` saw."""

    cancelled: int = 0
    other_outcomes: int = 0
    busy_backends: int = 0
    lost_slots: int = 0
    lost_connections: int = 0
    seconds: float = 0.0


async def cancel_running(dsn: str, count: int, size: int = 20) -> CancelReport:
    """Cancel *count* queries, each while the server is at it, *size* at a time."""
    report = CancelReport()
    pool = Pool(dsn, min_size=size, max_size=size, acquire_timeout=30.0)
    pool.startService()
    await pool.when_ready()
    await until(lambda: pool.stats().idle == size)
    begun = time.monotonic()
    while report.cancelled + report.other_outcomes < count:
        queries = [pool.execute("select pg_sleep(60)") for _ in range(size)]
        await until(lambda: busy_backends(dsn) == size)
        for query in queries:
            query.cancel()
        for success, result in await DeferredList(queries, consumeErrors=True):
            if not success and result.check(CancelledError):
                report.cancelled += 1
            else:
                report.other_outcomes += 1
        await until(lambda: pool.stats().in_use == 0)
    report.seconds = time.monotonic() - begun
    report.busy_backends = busy_backends(dsn)
    stats = pool.stats()
    report.lost_slots = size - stats.idle
    report.lost_connections = stats.lost
    together = await gatherResults([pool.fetch_value("select pg_sleep(0.1), 1") for _ in range(size)])
    assert len(together) == size
    await pool.stopService()
    return report


@dataclass
class SleepReport:
    """Answer times in milliseconds while a query sleeps, and those of the same load without one."""

    requests: int = 0
    p50: float = 0.0
    p99: float = 0.0
    longest: float = 0.0
    slept: int = 0
    during_sleep: int = 0
    p50_without: float = 0.0
    p99_without: float = 0.0


async def requests_beside_a_sleeper(reactor: Any, dsn: str, count: int, workers: int = 4) -> SleepReport:
    """Ask *count* times for a row while there is always a query that sleeps 2 s in the server."""
    report = SleepReport()
    ask(dsn, "create table series as select generate_series(1, 1000) n; select 1")
    times: list[float] = []
    sleeping: Deferred[None] | None = None
    over = False

    async def work(client: Client, left: Iterator[int]) -> None:
        for _ in left:
            begun = time.perf_counter()
            status, _ = await client.get("/read")
            times.append((time.perf_counter() - begun) * 1000)
            report.during_sleep += sleeping is not None and not sleeping.called
            assert status == 200

    async def keep_sleeping(client: Client) -> None:
        while not over:
            status, _ = await client.get("/sleep")
            assert status == 200
            report.slept += 1

    def percentiles() -> tuple[float, float]:
        times.sort()
        return times[len(times) // 2], times[int(len(times) * 0.99) - 1]

    async with Site(reactor, dsn, min_size=4, max_size=4) as site:
        clients = [await site.client() for _ in range(workers + 1)]
        sleeper = clients.pop()
        for client in clients:
            await client.get("/read")
        for asleep in (False, True):
            times.clear()
            if asleep:
                sleeping = Deferred.fromCoroutine(keep_sleeping(sleeper))
                await until(lambda: busy_backends(dsn) == 1)
            left = iter(range(count))
            await gatherResults([Deferred.fromCoroutine(work(client, left)) for client in clients])
            if not asleep:
                report.p50_without, report.p99_without = percentiles()
        over = True
        report.requests = len(times)
        report.p50, report.p99 = percentiles()
        report.longest = times[-1]
        assert sleeping is not None
        await sleeping
    return report
