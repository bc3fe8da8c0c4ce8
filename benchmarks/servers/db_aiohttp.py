"""aiohttp and asyncpg: one row as JSON (``PORT DSN [--uvloop]``)."""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import uvloop
from aiohttp import web

from benchmarks.db_clients import POOL_SIZE, QUERY_DOLLAR, as_url

POOL = web.AppKey("pool", asyncpg.Pool)


async def item(request: web.Request) -> web.Response:
    row = await request.app[POOL].fetchrow(QUERY_DOLLAR, int(request.match_info["number"]))
    return web.json_response({"id": row[0], "name": row[1], "price": row[2]})


async def root(request: web.Request) -> web.Response:
    return web.Response(text="ready")


async def make_app() -> web.Application:
    app = web.Application()
    app[POOL] = await asyncpg.create_pool(as_url(sys.argv[2]), min_size=POOL_SIZE, max_size=POOL_SIZE)
    app.add_routes([web.get("/", root), web.get("/item/{number}", item)])
    return app


loop = uvloop.new_event_loop() if "--uvloop" in sys.argv else asyncio.new_event_loop()
web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)
