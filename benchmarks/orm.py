"""``python -m benchmarks.orm``: what SQLAlchemy costs, on the reactor and on asyncio.

One table of 10,000 rows in a private PostgreSQL, one row by its primary key, 10 connections, 100 queries in
flight.  Each contender runs in a process of its own, one after the other, for several rounds; the median
counts.

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
#: What is compared with what, and the ratio it shall have at least.
GOALS = (("core", "pool", 0.6), ("get", "get-asyncpg", 1.0))


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


async def load(ask: Callable[[int], Awaitable[Any]], gather: Any, seconds: float) -> dict[str, float]:
    """Keep IN_FLIGHT calls of *ask* going; gives calls per second and CPU microseconds for each."""
    done = 0
    end = 0.0

    async def worker(number: int) -> None:
        nonlocal done
        key = number
        while time.perf_counter() < end:
            key = (key * 7919 + 13) % ROWS + 1
            await ask(key)
            done += 1

    for duration in (0.5, seconds):  # the first is to get warm
        done = 0
        began, cpu = time.perf_counter(), time.process_time()
        end = began + duration
        await gather([worker(number) for number in range(IN_FLIGHT)])
        took, used = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": done / took, "cpu": used / done * 1e6}


def ours(name: str, url: str, seconds: float) -> None:
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

        print(json.dumps(await load(ask, gather, seconds)))
        await db.stopService()

    react(lambda _: Deferred.fromCoroutine(main()))


def theirs(name: str, url: str, seconds: float) -> None:
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

        print(json.dumps(await load(get if name == "get-asyncpg" else core, gather, seconds)))
        await engine.dispose()

    asyncio.run(main())


def main(rounds: int, seconds: float) -> int:
    """Run all contenders and print the table; gives 1 where a goal is missed."""
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
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            command = [sys.executable, "-m", "benchmarks.orm", name, url, str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
            results[name].append(json.loads(done.stdout))
    median = {
        name: {key: statistics.median(each[key] for each in found) for key in ("rate", "cpu")}
        for name, found in results.items()
    }
    print("| contender | calls/s | CPU µs per call |\n|---|--:|--:|")
    for name, found in median.items():
        print(f"| {name} | {found['rate']:,.0f} | {found['cpu']:.0f} |")
    missed = 0
    for name, other, goal in GOALS:
        rate = statistics.median(
            a["rate"] / b["rate"] for a, b in zip(results[name], results[other], strict=True)
        )
        cpu = median[other]["cpu"] / median[name]["cpu"]
        missed |= rate < goal
        print(f"\n{name} / {other}: {rate:.2f} by calls/s, {cpu:.2f} by CPU (goal {goal})")
    return missed


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run = theirs if sys.argv[1].endswith("-asyncpg") else ours
        run(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(main(int(os.environ.get("ROUNDS", "3")), float(os.environ.get("SECONDS_EACH", "3"))))
