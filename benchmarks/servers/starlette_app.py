"""Starlette on uvicorn with httptools; Jinja2 for the template, the standard library for the signed
cookie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import uvicorn
from jinja2 import Environment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from benchmarks.servers import common

TEMPLATE = Environment(autoescape=True).from_string(common.JINJA_TEMPLATE)


async def plain(request: Request) -> Response:
    return PlainTextResponse(common.HELLO)


async def item(request: Request) -> Response:
    return JSONResponse({"id": request.path_params["number"], "q": request.query_params["q"]})


async def table(request: Request) -> Response:
    return HTMLResponse(TEMPLATE.render(title="Items", rows=common.ROWS))


async def form(request: Request) -> Response:
    fields = await request.form()
    return PlainTextResponse(f"{fields['name']},{fields['email']}")


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        return PlainTextResponse(str(len(await fields["file"].read())))


async def login(request: Request) -> Response:
    response = Response()
    response.set_cookie("user", common.sign(common.COOKIE_VALUE))
    return response


async def whoami(request: Request) -> Response:
    return PlainTextResponse(common.unsign(request.cookies.get("user")) or "nobody")


async def hop(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, common.HELLO)
    return PlainTextResponse(await future)


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(common.STREAM_CHUNKS):
        yield common.STREAM_CHUNK


async def stream(request: Request) -> Response:
    return StreamingResponse(chunks())


app = Starlette(
    routes=[
        Route("/", plain),
        Route("/items/{number:int}", item),
        Route("/table", table),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/login", login),
        Route("/whoami", whoami),
        Route("/hop", hop),
        Route("/stream", stream),
        Mount("/static", StaticFiles(directory=common.static_directory())),
    ]
)


if __name__ == "__main__":
    options = common.arguments()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        http="httptools",
        loop="uvloop" if options.uvloop else "asyncio",
        log_level="error",
        access_log=False,
    )
