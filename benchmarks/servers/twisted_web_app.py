"""twisted.web: a tree of resources; Jinja2 for the template, the standard library for the signed cookie."""

from __future__ import annotations

import json

from benchmarks.servers import common

if __name__ == "__main__":
    options = common.arguments()
    common.install_twisted_reactor(options.uvloop)

from jinja2 import Environment
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.iweb import IBodyProducer  # noqa: F401  (part of what an application loads)
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import File

TEMPLATE = Environment(autoescape=True).from_string(common.JINJA_TEMPLATE)


class Leaf(Resource):
    isLeaf = True


class Plain(Leaf):
    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain")
        return common.HELLO


class Item(Leaf):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"application/json; charset=UTF-8")
        return json.dumps({"id": self.number, "q": request.args[b"q"][0].decode()}).encode()


class Items(Resource):
    def getChild(self, path: bytes, request: Request) -> Resource:
        return Item(int(path))


class Table(Leaf):
    def render_GET(self, request: Request) -> bytes:
        return TEMPLATE.render(title="Items", rows=common.ROWS).encode()


class Form(Leaf):
    def render_POST(self, request: Request) -> bytes:
        return request.args[b"name"][0] + b"," + request.args[b"email"][0]


class Upload(Leaf):
    def render_POST(self, request: Request) -> bytes:
        return b"%d" % len(request.args[b"file"][0])


class Login(Leaf):
    def render_GET(self, request: Request) -> bytes:
        request.addCookie("user", common.sign(common.COOKIE_VALUE))
        return b""


class Whoami(Leaf):
    def render_GET(self, request: Request) -> bytes:
        return (common.unsign((request.getCookie(b"user") or b"").decode()) or "nobody").encode()


class Hop(Leaf):
    def render_GET(self, request: Request) -> int:
        fired: Deferred[bytes] = Deferred()
        reactor.callLater(0, fired.callback, common.HELLO)

        async def answer() -> None:
            request.write(await fired)
            request.finish()

        Deferred.fromCoroutine(answer())
        return NOT_DONE_YET


class ChunkProducer:
    """A pull producer: the idiom of twisted.web for an answer that does not fit into memory."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.left = common.STREAM_CHUNKS

    def resumeProducing(self) -> None:
        self.request.write(common.STREAM_CHUNK)
        self.left -= 1
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.left = 0


class Stream(Leaf):
    def render_GET(self, request: Request) -> int:
        request.registerProducer(ChunkProducer(request), False)
        return NOT_DONE_YET


class QuietSite(Site):
    def log(self, request: Request) -> None:
        """No access log, as for every other server here."""


def make_root() -> Resource:
    root = Resource()
    leaves = {
        b"": Plain(),
        b"items": Items(),
        b"table": Table(),
        b"form": Form(),
        b"upload": Upload(),
        b"login": Login(),
        b"whoami": Whoami(),
        b"hop": Hop(),
        b"stream": Stream(),
        b"static": File(str(common.static_directory())),
    }
    for name, resource in leaves.items():
        root.putChild(name, resource)
    return root


if __name__ == "__main__":
    reactor.listenTCP(options.port, QuietSite(make_root()), interface="127.0.0.1")
    reactor.run()
