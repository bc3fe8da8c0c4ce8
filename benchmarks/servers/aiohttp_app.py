"""aiohttp: handlers as coroutines; Jinja2 for the template, the standard library for the signed cookie."""

from __future__ import annotations

import asyncio

from aiohttp import web
from jinja2 import Environment

from benchmarks.servers import common

TEMPLATE = Environment(autoescape=True).from_string(common.JINJA_TEMPLATE)


async def plain(request: web.Request) -> web.Response:
    return web.Response(body=common.HELLO, content_type="text/plain")


async def item(request: web.Request) -> web.Response:
    return web.json_response({"id": int(request.match_info["number"]), "q": request.query["q"]})


async def table(request: web.Request) -> web.Response:
    return web.Response(text=TEMPLATE.render(title="Items", rows=common.ROWS), content_type="text/html")


async def form(request: web.Request) -> web.Response:
    fields = await request.post()
    return web.Response(text=f"{fields['name']},{fields['email']}")


async def upload(request: web.Request) -> web.Response:
    fields = await request.post()
    return web.Response(text=str(len(fields["file"].file.read())))


async def login(request: web.Request) -> web.Response:
    response = web.Response()
    response.set_cookie("user", common.sign(common.COOKIE_VALUE))
    return response


async def whoami(request: web.Request) -> web.Response:
    return web.Response(text=common.unsign(request.cookies.get("user")) or "nobody")


async def hop(request: web.Request) -> web.Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, common.HELLO)
    return web.Response(body=await future)


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(common.STREAM_CHUNKS):
        await response.write(common.STREAM_CHUNK)
    await response.write_eof()
    return response


def make_app() -> web.Application:
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.add_routes(
        [
            web.get("/", plain),
            web.get(r"/items/{number:\d+}", item),
            web.get("/table", table),
            web.post("/form", form),
            web.post("/upload", upload),
            web.get("/login", login),
            web.get("/whoami", whoami),
            web.get("/hop", hop),
            web.get("/stream", stream),
            web.static("/static", common.static_directory()),
        ]
    )
    return app


if __name__ == "__main__":
    options = common.arguments()
    if options.uvloop:
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    web.run_app(make_app(), host="127.0.0.1", port=options.port, access_log=None, print=None, loop=loop)
