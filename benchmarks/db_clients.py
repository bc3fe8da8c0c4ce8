"""Programs that ask a database as fast as they can; ``benchmarks.db`` starts each in a process of its own.

``python -m benchmarks.db_clients NAME DSN SECONDS`` prints a line of JSON: operations, seconds, CPU seconds.
A new way to ask is one more entry in :data:`CLIENTS`: a function that is given the DSN and a
:class:`Loop`, and calls ``loop.asyncio`` or ``loop.twisted`` with what prepares, asks once and closes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

IN_FLIGHT = 100
POOL_SIZE = 10
ROWS = 1000
WARM_UP = 0.5
QUERY = "select id, name, price from item where id = %s"
QUERY_DOLLAR = "select id, name, price from item where id = $1"


class Loop:
    """Keeps :data:`IN_FLIGHT` operations going for *seconds* and counts them."""

    def __init__(self, seconds: float, uvloop: bool) -> None:
        self.seconds = seconds
        self.uvloop = uvloop
        self.operations = 0
        self.wall = self.cpu = 0.0
        self._measured = self._ended = False

    async def _keep_asking(self, ask: Callable[[int], Awaitable[Any]]) -> None:
        while not self._ended:
            number = random.randrange(ROWS)
            row = await ask(number)
            assert row[0] == number
            if self._measured:
                self.operations += 1

    def _begin(self) -> None:
        self.wall, self.cpu, self._measured = time.perf_counter(), time.process_time(), True

    def _end(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self._measured, self._ended = False, True

    def asyncio(self, prepare: Callable[[], Coroutine[Any, Any, tuple[Any, Any]]]) -> None:
        """*prepare* gives (ask, close)."""

        async def work() -> None:
            ask, close = await prepare()
            tasks = [asyncio.ensure_future(self._keep_asking(ask)) for _ in range(IN_FLIGHT)]
            await asyncio.sleep(WARM_UP)
            self._begin()
            await asyncio.sleep(self.seconds)
            self._end()
            await asyncio.gather(*tasks)
            await close()

        if self.uvloop:
            import uvloop

            uvloop.run(work())
        else:
            asyncio.run(work())

    def twisted(self, prepare: Callable[[], Coroutine[Any, Any, tuple[Any, Any]]]) -> None:
        """As :meth:`asyncio`, on the default reactor (or on the asyncio reactor with uvloop)."""
        if self.uvloop:
            import uvloop
            from twisted.internet import asyncioreactor

            asyncioreactor.install(uvloop.new_event_loop())
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred, gatherResults
        from twisted.internet.task import deferLater, react

        async def work(_: Any) -> None:
            ask, close = await prepare()
            tasks = [Deferred.fromCoroutine(self._keep_asking(ask)) for _ in range(IN_FLIGHT)]
            await deferLater(reactor, WARM_UP)
            self._begin()
            await deferLater(reactor, self.seconds)
            self._end()
            await gatherResults(tasks)
            await close()

        try:
            react(lambda clock: Deferred.fromCoroutine(work(clock)))
        except SystemExit as error:
            if error.code:
                raise


def ask_cycloneish(dsn: str, loop: Loop) -> None:
    """The pool of cycloneish."""

    async def prepare() -> tuple[Any, Any]:
        from cycloneish.db.postgres import Pool

        pool = Pool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE)
        pool.startService()
        await pool.when_ready()
        return (lambda number: pool.fetch_one(QUERY, (number,))), pool.stopService

    loop.twisted(prepare)


def ask_txpostgres(dsn: str, loop: Loop) -> None:
    """txpostgres and its own pool of fixed size."""

    async def prepare() -> tuple[Any, Any]:
        from txpostgres import txpostgres

        pool = txpostgres.ConnectionPool(None, dsn, min=POOL_SIZE)
        await pool.start()

        async def close() -> None:
            pool.close()

        return (lambda number: pool.runQuery(QUERY, (number,)).addCallback(lambda rows: rows[0])), close

    loop.twisted(prepare)


def ask_asyncpg(dsn: str, loop: Loop) -> None:
    """asyncpg and its pool."""

    async def prepare() -> tuple[Any, Any]:
        import asyncpg

        pool = await asyncpg.create_pool(as_url(dsn), min_size=POOL_SIZE, max_size=POOL_SIZE)
        return (lambda number: pool.fetchrow(QUERY_DOLLAR, number)), pool.close

    loop.asyncio(prepare)


def ask_psycopg3(dsn: str, loop: Loop) -> None:
    """psycopg 3 (C) and its pool."""

    async def prepare() -> tuple[Any, Any]:
        from psycopg_pool import AsyncConnectionPool

        pool = AsyncConnectionPool(
            dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, open=False, kwargs={"autocommit": True}
        )
        await pool.open(wait=True)

        async def ask(number: int) -> Any:
            async with pool.connection() as connection:
                cursor = await connection.execute(QUERY, (number,))
                return await cursor.fetchone()

        return ask, pool.close

    loop.asyncio(prepare)


@dataclass(frozen=True)
class Client:
    """*needs* are the packages a client wants beside ours."""

    ask: Callable[[str, Loop], None]
    uvloop: bool = False
    ours: bool = False


CLIENTS: dict[str, Client] = {
    "cycloneish": Client(ask_cycloneish, ours=True),
    "txpostgres": Client(ask_txpostgres),
    "asyncpg": Client(ask_asyncpg),
    "psycopg3": Client(ask_psycopg3),
    "cycloneish-uvloop": Client(ask_cycloneish, uvloop=True, ours=True),
    "asyncpg-uvloop": Client(ask_asyncpg, uvloop=True),
    "psycopg3-uvloop": Client(ask_psycopg3, uvloop=True),
}


def as_url(dsn: str) -> str:
    """A libpq key=value string as the URL that asyncpg wants."""
    from urllib.parse import urlencode

    parts = dict(part.split("=", 1) for part in dsn.replace("'", "").split())
    return f"postgresql:///{parts['dbname']}?" + urlencode({"host": parts["host"], "user": parts["user"]})


def main(argv: list[str]) -> None:
    name, dsn, seconds = argv
    client = CLIENTS[name]
    loop = Loop(float(seconds), client.uvloop)
    client.ask(dsn, loop)
    print(json.dumps({"operations": loop.operations, "seconds": loop.wall, "cpu": loop.cpu}))


if __name__ == "__main__":
    main(sys.argv[1:])
