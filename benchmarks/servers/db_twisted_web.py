"""twisted.web and txpostgres with its own pool: one row as JSON (``PORT DSN``)."""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from txpostgres import txpostgres

from benchmarks.db_clients import POOL_SIZE, QUERY


class Item(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> Any:
        def answer(rows: Any) -> None:
            row = rows[0]
            request.setHeader(b"Content-Type", b"application/json")
            request.write(json.dumps({"id": row[0], "name": row[1], "price": row[2]}).encode())
            request.finish()

        pool.runQuery(QUERY, (int(request.postpath[0]),)).addCallback(answer)
        return NOT_DONE_YET


class Root(Resource):
    def getChild(self, path: bytes, request: Request) -> Resource:
        return self

    def render_GET(self, request: Request) -> bytes:
        return b"ready"


pool = txpostgres.ConnectionPool(None, sys.argv[2], min=POOL_SIZE)
root = Root()
root.putChild(b"item", Item())
pool.start().addCallback(lambda _: reactor.listenTCP(int(sys.argv[1]), Site(root), interface="127.0.0.1"))
reactor.run()
