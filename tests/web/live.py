"""A server on a real port and a client that speaks plain bytes, for tests where those matter."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cycloneish.httpserver import HTTPServer
from cycloneish.testing.wire import ResponseReader


class Client(Protocol):
    """One connection; keeps all that comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.gone: Deferred[None] = Deferred()
        self._waiting: list[tuple[Any, Deferred[bytearray]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self._look()
        self.gone.callback(None)

    def _look(self) -> None:
        for entry in list(self._waiting):
            condition, found = entry
            if condition(self.data) or self.closed:
                self._waiting.remove(entry)
                found.callback(self.data)

    def until(self, condition: Any) -> Deferred[bytearray]:
        """Fires with all data when *condition* (bytes, or a function of all data) holds, or at the end."""
        if isinstance(condition, bytes):
            wanted, looked = condition, 0

            def condition(data: bytearray) -> bool:
                nonlocal looked
                found = data.find(wanted, max(0, looked - len(wanted)))
                looked = len(data)
                return found >= 0

        found: Deferred[bytearray] = Deferred()
        self._waiting.append((condition, found))
        found.addTimeout(10, reactor)
        self._look()
        return found

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class LiveTestCase(TestCase):
    """Serves, and asks."""

    timeout = 20
    port: int
    server: HTTPServer

    def serve(self, target: Any, **options: Any) -> None:
        """Serve *target* (anything HTTPServer takes) until the end of the test."""
        server = self.server = HTTPServer(target, **options)
        listening = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.port = listening.getHost().port
        self.addCleanup(server.close_all_connections)
        self.addCleanup(server.stop)
        self.addCleanup(listening.stopListening)

    async def connect(self) -> Client:
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), Client())

        async def close() -> None:
            client.close()
            if not client.closed:
                await client.gone

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return client

    async def fetch(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> ResponseReader:
        """One request on a connection of its own; the body of the response is its `body`."""
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        client = await self.connect()
        client.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        await client.gone
        return read_response(method, bytes(client.data))


def read_response(method: str, data: bytes) -> Any:
    reader: Any = ResponseReader(method)
    reader.body = reader.feed(data)
    return reader


def sleep(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)
