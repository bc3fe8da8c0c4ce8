"""``python -m benchmarks.orm``: what SQLAlchemy costs, on the reactor and on asyncio.

One table of 10,000 rows in a private PostgreSQL, one row by its primary key, 10 connections, 100 queries in
flight.  Each contender has a process of its own.  They take turns, a quarter of a second each and many
rounds, so that whatever else the machine does meets them all; the median of the rounds' ratios counts.

* ``pool``: our pool, SQL in a string.
* ``core``: ``db.execute`` with one Core statement, kept and used again.
* ``core-built``: the same, the statement built for every call.
* ``core-asyncpg``: SQLAlchemy's ``AsyncEngine`` on asyncpg, one connection from its pool for each call.
* ``get``: a session and ``session.get``.
* ``get-asyncpg``: SQLAlchemy's ``AsyncSession`` on asyncpg and its ``get``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

ROWS = 10_000
CONNECTIONS = 10
IN_FLIGHT = 100
CONTENDERS = ("pool", "core", "core-built", "core-asyncpg", "get", "get-asyncpg")
#: What is compared with what, and the ratios it shall have at least: by calls per second, by CPU.
GOALS = (("core", "pool", 0.6, 0.0), ("get", "get-asyncpg", 1.0, 1.0))


def statements() -> tuple[Any, Any, Any]:
    """The table's class, the statement by primary key, and SQLAlchemy."""
    import sqlalchemy
    from sqlalchemy import orm

    class Base(orm.DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "item"
        id = orm.mapped_column(sqlalchemy.Integer, primary_key=True)
        name = orm.mapped_column(sqlalchemy.String)
        price = orm.mapped_column(sqlalchemy.Integer)

    table = Item.__table__
    statement = sqlalchemy.select(table).where(table.c.id == sqlalchemy.bindparam("id"))
    return Item, statement, sqlalchemy


async def load(ask: Callable[[int], Awaitable[Any]], gather: Any) -> None:
    """Keep IN_FLIGHT calls of *ask* going for as many seconds as each line of standard input says.

    Answers each line with the calls per second and the CPU microseconds for each.
    """
    done = 0
    end = 0.0

    async def worker(number: int) -> None:
        nonlocal done
        key = number
        while time.perf_counter() < end:
            key = (key * 7919 + 13) % ROWS + 1
            await ask(key)
            done += 1

    for line in sys.stdin:
        done = 0
        began, cpu = time.perf_counter(), time.process_time()
        end = began + float(line)
        await gather([worker(number) for number in range(IN_FLIGHT)])
        took, used = time.perf_counter() - began, time.process_time() - cpu
        print(json.dumps({"rate": done / took, "cpu": used / done * 1e6}), flush=True)


def ours(name: str, url: str) -> None:
    """A contender on the reactor."""
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.task import react

    from cycloneish.db import Database

    item, statement, sqlalchemy = statements()
    table = item.__table__

    async def main() -> None:
        db = Database(url, min_size=CONNECTIONS, max_size=CONNECTIONS)
        db.startService()
        await db.when_ready()
        pool = db.pool

        async def get(key: int) -> None:
            async with db.session() as session:
                assert (await session.get(item, key)).id == key

        async def core(key: int) -> None:
            assert (await db.execute(statement, {"id": key})).one()[0] == key

        async def built(key: int) -> None:
            assert (await db.execute(sqlalchemy.select(table).where(table.c.id == key))).one()[0] == key

        async def raw(key: int) -> None:
            assert (await pool.fetch_one("select id, name, price from item where id = %s", (key,)))[0] == key

        ask = {"pool": raw, "core": core, "core-built": built, "get": get}[name]

        def gather(workers: list[Any]) -> Any:
            return gatherResults([Deferred.fromCoroutine(worker) for worker in workers])

        await load(ask, gather)
        await db.stopService()

    react(lambda _: Deferred.fromCoroutine(main()))


def theirs(name: str, url: str) -> None:
    """A contender on asyncio."""
    import asyncio

    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    item, statement, _ = statements()

    async def main() -> None:
        engine = create_async_engine(
            url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=CONNECTIONS, max_overflow=0
        )

        async def get(key: int) -> None:
            async with AsyncSession(engine) as session:
                found = await session.get(item, key)
                assert found is not None
                assert found.id == key

        async def core(key: int) -> None:
            async with engine.connect() as connection:
                assert (await connection.execute(statement, {"id": key})).one()[0] == key

        async def gather(workers: list[Any]) -> None:
            await asyncio.gather(*workers)

        await load(get if name == "get-asyncpg" else core, gather)
        await engine.dispose()

    asyncio.run(main())


class Contender:
    """A contender's process, which measures when it is told to."""

    def __init__(self, name: str, url: str) -> None:
        command = [sys.executable, "-m", "benchmarks.orm", name, url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.measure(0.5)  # to get warm
        self.found: list[dict[str, float]] = []

    def measure(self, seconds: float) -> dict[str, float]:
        """Calls per second and CPU microseconds for a call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()

    def median(self, key: str) -> float:
        """Of all that was measured."""
        return statistics.median(each[key] for each in self.found)


def make_table() -> str:
    """A database with the table; its URL."""
    import psycopg2

    from tests.db.support import fresh_url

    url = fresh_url()
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("create table item (id serial primary key, name text not null, price int not null)")
        cursor.execute(
            "insert into item (name, price) select 'item ' || n, n from generate_series(1, %s) n", (ROWS,)
        )
        cursor.execute("analyze item")
    connection.close()
    return url


def main(rounds: int, seconds: float) -> int:
    """Run all contenders and print the table; gives 1 where a goal is missed."""
    url = make_table()
    contenders = {name: Contender(name, url) for name in CONTENDERS}
    for _ in range(rounds):
        for contender in contenders.values():
            contender.found.append(contender.measure(seconds))
    for contender in contenders.values():
        contender.stop()
    print("| contender | calls/s | CPU µs per call |\n|---|--:|--:|")
    for name, contender in contenders.items():
        print(f"| {name} | {contender.median('rate'):,.0f} | {contender.median('cpu'):.0f} |")
    missed = 0
    for name, other, least_rate, least_cpu in GOALS:
        pairs = list(zip(contenders[name].found, contenders[other].found, strict=True))
        rate = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
        cpu = statistics.median(b["cpu"] / a["cpu"] for a, b in pairs)
        missed |= rate < least_rate or cpu < least_cpu
        print(f"\n{name} / {other}: {rate:.2f} by calls/s (goal {least_rate}), {cpu:.2f} by CPU", end="")
        print(f" (goal {least_cpu})" if least_cpu else "")
    return missed


if __name__ == "__main__":
    if len(sys.argv) == 3:
        run = theirs if sys.argv[1].endswith("-asyncpg") else ours
        run(sys.argv[1], sys.argv[2])
    else:
        sys.exit(main(int(os.environ.get("ROUNDS", "40")), float(os.environ.get("SECONDS_EACH", "0.25"))))
