"""Serves on the reactor named on the command line and prints who saw which context variable.

See test_contexts. Each handler style sets a variable in `prepare` and writes down what it sees later; all
requests go over one connection, pipelined and one after the other, so that one could see another's.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from tests.reactor_smoke import install

install(sys.argv[1])

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred, inlineCallbacks  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402

from cycloneish.coroutines import running_loop  # noqa: E402
from cycloneish.httpserver import HTTPServer  # noqa: E402
from cycloneish.web import Application, RequestHandler, asynchronous, stream_request_body  # noqa: E402

who: ContextVar[str] = ContextVar("who", default="nobody")
found: dict[str, dict[str, str]] = {}


def wait() -> Deferred[None]:
    return deferLater(reactor, 0.001)


class Base(RequestHandler):
    def initialize(self) -> None:
        self.name = self.request.path[1:]
        self.saw("initialize")

    def prepare(self) -> Any:
        who.set(self.name)

    def saw(self, where: str) -> None:
        found.setdefault(self.name, {})[where] = who.get()

    def on_finish(self) -> None:
        self.saw("on_finish")

    def on_connection_close(self, *_: Any, **__: Any) -> None:
        self.saw("on_connection_close")


class Plain(Base):
    def get(self) -> None:
        self.saw("verb")


class Generators(Base):
    @inlineCallbacks
    def get(self) -> Generator[Deferred[None], None, None]:
        self.saw("verb")
        yield wait()
        self.saw("later")


class Coroutines(Base):
    async def prepare(self) -> None:
        await wait()
        who.set(self.name)

    async def get(self) -> None:
        self.saw("verb")
        await wait()
        self.saw("later")
        await self.below()

    @inlineCallbacks
    def below(self) -> Generator[Deferred[None], None, None]:
        yield wait()
        self.saw("below")


class Streams(Coroutines):
    async def data_received(self, chunk: bytes) -> None:
        await wait()
        self.saw("data_received")

    async def post(self) -> None:
        self.saw("verb")
        await wait()
        self.saw("later")


class PlainStreams(Streams):
    def prepare(self) -> Any:
        who.set(self.name)


class Callbacks(Base):
    @asynchronous
    def get(self) -> None:
        self.saw("verb")
        wait().addCallback(lambda _: self.finish())


class Waits(Coroutines):
    cancel_on_disconnect = True

    async def get(self) -> None:
        self.saw("verb")
        arrived.callback(None)
        try:
            await Deferred()
        finally:
            self.saw("cancelled")


class FromAsyncio(Base):
    async def get(self) -> None:
        import asyncio

        await asyncio.sleep(0.001)
        self.saw("later")
        self.finish()


routes = [
    ("/plain-streams.*", stream_request_body(PlainStreams)),
    ("/plain.*", Plain),
    ("/generators.*", Generators),
    ("/coroutines.*", Coroutines),
    ("/streams.*", stream_request_body(Streams)),
    ("/callbacks.*", Callbacks),
    ("/waits", Waits),
    ("/asyncio.*", FromAsyncio),
]
arrived: Deferred[None] = Deferred()


def head(method: str, path: str, more: str = "") -> bytes:
    return f"{method} /{path} HTTP/1.1\r\nHost: a\r\n{more}\r\n".encode()


def client(port: int, asyncio: bool) -> None:
    """Each kind of handler before each other kind, in one go and one after the other."""
    kinds = ["plain", "generators", "coroutines", "streams", "plain-streams", "callbacks"]
    kinds += ["asyncio"] if asyncio else []

    def request(kind: str, number: int, way: str) -> bytes:
        path = f"{kind}-{way}-{number}"
        if "streams" in kind:
            return head("POST", path, "Content-Length: 5\r\n") + b"piece"
        return head("GET", path)

    order = [kind for first in kinds for other in kinds for kind in (first, other)]
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"".join(request(kind, number, "piped") for number, kind in enumerate(order)))
        received = b""
        while received.count(b"HTTP/1.1 200") < len(order):
            received += (piece := sock.recv(65536))
            assert piece, received[-500:]
        for number, kind in enumerate(order):
            sock.sendall(request(kind, number, "single"))
            answer = sock.recv(65536)
            assert b" 200 " in answer, answer
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        # Half of the body arrives while the handler prepares, and the client goes.
        sock.sendall(head("POST", "streams-left", "Content-Length: 500\r\n") + b"piece")
        sock.sendall(b"another")


def leave(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(head("GET", "waits"))
        while not arrived.called:
            pass


async def main() -> None:
    server = HTTPServer(Application(routes))
    port = server.listen(0, "127.0.0.1").getHost().port
    await deferToThread(client, port, running_loop() is not None)
    await deferToThread(leave, port)
    while "on_finish" not in found["waits"] or "on_finish" not in found["streams-left"]:
        await wait()
    await server.stop()


def ended(result: object) -> None:
    print(json.dumps(found) if result is None else result)
    reactor.stop()


reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addBoth(ended))
reactor.run()
