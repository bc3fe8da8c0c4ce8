"""Tornado and asyncpg: one row as JSON (``PORT DSN``)."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
from tornado.web import Application, RequestHandler

from benchmarks.db_clients import POOL_SIZE, QUERY_DOLLAR, as_url


class Item(RequestHandler):
    async def get(self, number: str) -> None:
        row = await self.application.pool.fetchrow(QUERY_DOLLAR, int(number))
        self.write({"id": row[0], "name": row[1], "price": row[2]})


class Root(RequestHandler):
    def get(self) -> None:
        self.write("ready")


async def main() -> None:
    application = Application([(r"/", Root), (r"/item/([0-9]+)", Item)])
    application.pool = await asyncpg.create_pool(as_url(sys.argv[2]), min_size=POOL_SIZE, max_size=POOL_SIZE)
    application.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
