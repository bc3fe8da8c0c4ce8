"""Tornado, as its own documentation writes it."""

from __future__ import annotations

import asyncio

from tornado.template import DictLoader
from tornado.web import Application, RequestHandler

from benchmarks.servers import common


class Plain(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Type", "text/plain")
        self.write(common.HELLO)


class Item(RequestHandler):
    def get(self, number: str) -> None:
        self.write({"id": int(number), "q": self.get_query_argument("q")})


class Table(RequestHandler):
    def get(self) -> None:
        self.render("table.html", title="Items", rows=common.ROWS)


class Form(RequestHandler):
    def post(self) -> None:
        self.write(self.get_body_argument("name") + "," + self.get_body_argument("email"))


class Upload(RequestHandler):
    def post(self) -> None:
        self.write(str(len(self.request.files["file"][0].body)))


class Login(RequestHandler):
    def get(self) -> None:
        self.set_signed_cookie("user", common.COOKIE_VALUE)


class Whoami(RequestHandler):
    def get(self) -> None:
        self.write(self.get_signed_cookie("user") or b"nobody")


class Hop(RequestHandler):
    async def get(self) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, common.HELLO)
        self.write(await future)


class Stream(RequestHandler):
    async def get(self) -> None:
        for _ in range(common.STREAM_CHUNKS):
            self.write(common.STREAM_CHUNK)
            await self.flush()


def make_app() -> Application:
    return Application(
        [
            ("/", Plain),
            (r"/items/(\d+)", Item),
            ("/table", Table),
            ("/form", Form),
            ("/upload", Upload),
            ("/login", Login),
            ("/whoami", Whoami),
            ("/hop", Hop),
            ("/stream", Stream),
        ],
        template_loader=DictLoader({"table.html": common.TORNADO_TEMPLATE}),
        static_path=str(common.static_directory()),
        cookie_secret=common.SECRET,
        log_function=lambda handler: None,
    )


async def main(port: int) -> None:
    make_app().listen(port, address="127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = common.arguments()
    if options.uvloop:
        import uvloop

        uvloop.run(main(options.port))
    else:
        asyncio.run(main(options.port))
