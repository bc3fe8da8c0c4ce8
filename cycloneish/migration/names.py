"""What becomes of Tornado's and Cyclone's modules and names; read by :mod:`cycloneish.migration.rewrite`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADVICE", "CALLS", "PACKAGES", "Place", "place_of"]

PACKAGES = ("tornado", "cyclone")

_SAME = frozenset(
    (
        "auth",
        "autoreload",
        "concurrent",
        "escape",
        "gen",
        "httpclient",
        "httpserver",
        "httputil",
        "ioloop",
        "iostream",
        "locale",
        "locks",
        "log",
        "options",
        "queues",
        "routing",
        "simple_httpclient",
        "template",
        "testing",
        "util",
        "web",
        "websocket",
        "wsgi",
        "bottle",
        "jsonrpc",
        "mail",
        "redis",
        "sqlite",
        "sse",
        "xmlrpc",
    )
)
_GONE = {
    "tornado.curl_httpclient": "use cycloneish.httpclient: its client has proxies and digest authentication",
    "tornado.http1connection": "the engine is behind cycloneish.httpserver.HTTPServer",
    "tornado.netutil": "use endpoint strings for ports; Twisted resolves names by itself",
    "tornado.platform.asyncio": "start on the asyncio reactor: cycloneish run --reactor asyncio",
    "tornado.platform.caresresolver": "Twisted has a resolver of its own",
    "tornado.platform.twisted": "nothing is needed, this is Twisted",
    "tornado.process": "start several processes with reuse_port=True; for other programs "
    "there is reactor.spawnProcess",
    "tornado.tcpclient": "use twisted.internet.endpoints.clientFromString and a Protocol",
    "tornado.tcpserver": "use twisted.internet.endpoints.serverFromString and a Protocol",
    "cyclone.app": "there is no project generator: start from the tutorial or an example",
}
_ELSEWHERE = {
    "cyclone.testing.client": "cycloneish.testing.cyclone",
    "cyclone.testing.testcase": "cycloneish.testing.cyclone",
    "cyclone.testing": "cycloneish.testing.cyclone",
}

#: What to say about a name, by the place it had. The import is rewritten all the same.
ADVICE = {
    "cyclone.redis": "needs pip install 'cycloneish[redis]'; pass the timeouts of connections by name, their "
    "places have changed",
    "cyclone.sqlite": "each query blocks every other request, as it did; cycloneish.db does not",
    "cyclone.httpserver.HTTPConnection": "is where answers are written to, no protocol any more; that is "
    "request.connection.stream",
    "tornado.testing": "wait() gives a Deferred here: await it; tests run under trial, pytest and unittest",
    "tornado.httpserver.HTTPServer.configure": "there is one implementation: make a subclass",
    "tornado.ioloop.IOLoop.add_handler": "watch sockets with reactor.addReader and addWriter",
    "tornado.ioloop.IOLoop.update_handler": "watch sockets with reactor.addReader and addWriter",
    "tornado.ioloop.IOLoop.configure": "there is one loop: choose a reactor with cycloneish run --reactor",
    "tornado.concurrent.Future": "is a Deferred with a Future's methods but for result(): await it, or "
    "ask outcome()",
    "tornado.gen": "coroutines give Deferreds: await them, or ask outcome() where result() was asked",
    "tornado.iostream": "IOStream has no start_tls and read_into; a Twisted protocol does more",
}

#: What to say about calls of methods of these names, whatever they are called on.
CALLS = {
    "connection.stream": "is a Twisted protocol here: it has close() and transport; who it is, is in "
    "request.remote_ip, and whether the client has left, on_connection_close tells",
    "self.async_callback": "is not needed where the method returns a Deferred",
}


@dataclass(frozen=True)
class Place:
    """Where a module has gone.

    :ivar module: its name here, None if there is nothing of it.
    :ivar advice: what to do, empty when there is nothing to do.
    """

    module: str | None
    advice: str = ""


def place_of(module: str) -> Place | None:
    """Where Tornado's or Cyclone's module *module* is here; None if it is no module of theirs that is known.

    :param module: its dotted name, such as ``tornado.web``.
    """
    if module in PACKAGES:
        return Place("cycloneish")
    if module in _ELSEWHERE:
        return Place(_ELSEWHERE[module])
    if module in _GONE:
        return Place(None, _GONE[module])
    package, _, name = module.partition(".")
    if package not in PACKAGES:
        return None
    if name in _SAME:
        return Place(f"cycloneish.{name}")
    return None
