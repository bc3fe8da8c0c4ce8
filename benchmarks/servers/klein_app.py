"""Klein: routes on twisted.web; Jinja2 for the template, the standard library for the signed cookie."""

from __future__ import annotations

import json

from benchmarks.servers import common

if __name__ == "__main__":
    options = common.arguments()
    common.install_twisted_reactor(options.uvloop)

from jinja2 import Environment
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.static import File

from benchmarks.servers.twisted_web_app import QuietSite, Stream

TEMPLATE = Environment(autoescape=True).from_string(common.JINJA_TEMPLATE)
app = Klein()


@app.route("/")
def plain(request: Request) -> bytes:
    request.setHeader(b"content-type", b"text/plain")
    return common.HELLO


@app.route("/items/<int:number>")
def item(request: Request, number: int) -> bytes:
    request.setHeader(b"content-type", b"application/json; charset=UTF-8")
    return json.dumps({"id": number, "q": request.args[b"q"][0].decode()}).encode()


@app.route("/table")
def table(request: Request) -> str:
    return TEMPLATE.render(title="Items", rows=common.ROWS)


@app.route("/form", methods=["POST"])
def form(request: Request) -> bytes:
    return request.args[b"name"][0] + b"," + request.args[b"email"][0]


@app.route("/upload", methods=["POST"])
def upload(request: Request) -> bytes:
    return b"%d" % len(request.args[b"file"][0])


@app.route("/login")
def login(request: Request) -> bytes:
    request.addCookie("user", common.sign(common.COOKIE_VALUE))
    return b""


@app.route("/whoami")
def whoami(request: Request) -> str:
    return common.unsign((request.getCookie(b"user") or b"").decode()) or "nobody"


@app.route("/hop")
async def hop(request: Request) -> bytes:
    fired: Deferred[bytes] = Deferred()
    reactor.callLater(0, fired.callback, common.HELLO)
    return await fired


@app.route("/stream")
def stream(request: Request) -> Stream:
    return Stream()


@app.route("/static/", branch=True)
def static(request: Request) -> File:
    return File(str(common.static_directory()))


if __name__ == "__main__":
    reactor.listenTCP(options.port, QuietSite(app.resource()), interface="127.0.0.1")
    reactor.run()
