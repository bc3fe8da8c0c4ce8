"""cycloneish and its pool: one row as JSON (``PORT DSN [--uvloop]``)."""

from __future__ import annotations

import sys

if "--uvloop" in sys.argv:
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())

from twisted.internet import reactor

from benchmarks.db_clients import POOL_SIZE, QUERY
from cycloneish.db.postgres import Pool
from cycloneish.web import Application, RequestHandler


class Item(RequestHandler):
    async def get(self, number: str) -> None:
        row = await pool.fetch_one(QUERY, (int(number),))
        self.write({"id": row[0], "name": row[1], "price": row[2]})


class Root(RequestHandler):
    def get(self) -> None:
        self.write("ready")


pool = Pool(sys.argv[2], min_size=POOL_SIZE, max_size=POOL_SIZE)
pool.startService()
Application([(r"/", Root), (r"/item/([0-9]+)", Item)]).listen(int(sys.argv[1]), "127.0.0.1")
reactor.run()
