"""What tests of the client talk to: servers that answer what the test says, byte by byte.

:class:`ClientTestCase` has a client, servers, and a log; everything is closed when the test ends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cycloneish.httpclient import AsyncHTTPClient
from tests.http.certificates import Authority

T = TypeVar("T")
#: Seconds after which a test stops to wait.
PATIENCE = 20.0


def response(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """A response in bytes."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Conversation(Protocol):
    """One connection to a `RawServer`."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.buffer = b""
        self.requests: list[bytes] = []
        self.closed: Deferred[None] = Deferred()
        self.is_closed = False
        self.factory.conversations.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", self.buffer[:end])
            size = end + 4 + (int(length[1]) if length else 0)
            if b"\r\nTransfer-Encoding: chunked" in self.buffer[:end]:
                last = self.buffer.find(b"\r\n0\r\n\r\n", end)
                size = last + 7 if last >= 0 else len(self.buffer) + 1
            elif b"\r\nExpect: 100-continue" in self.buffer[:end]:
                size = end + 4
            if len(self.buffer) < size:
                return
            request, self.buffer = self.buffer[:size], self.buffer[size:]
            self.requests.append(request)
            self.factory.requests.append(request)
            answer = self.factory.answer(request, self)
            if answer:
                self.transport.write(answer)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.is_closed = True
        self.closed.callback(None)


class RawServer(Factory):
    """Answers each request with what *answer* returns for it; None sends nothing."""

    protocol = Conversation
    noisy = False

    def __init__(self, answer: Callable[[bytes, Conversation], bytes | None] | bytes) -> None:
        self.answer = answer if callable(answer) else lambda request, conversation: answer
        self.requests: list[bytes] = []
        self.conversations: list[Conversation] = []
        self.port = 0
        self.scheme = "http"

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


class ClientTestCase(TestCase):
    """A test with a client of its own."""

    timeout = 60

    def setUp(self) -> None:
        self.client = self.make_client()
        self.records = Records()
        log = logging.getLogger("cycloneish")
        level = log.level
        log.setLevel(logging.DEBUG)
        log.addHandler(self.records)
        self.addCleanup(log.setLevel, level)
        self.addCleanup(log.removeHandler, self.records)

    def make_client(self, **arguments: Any) -> Any:
        """A client that is closed with the test."""
        client = AsyncHTTPClient(force_instance=True, **arguments)
        self.addCleanup(client.close)
        return client

    @property
    def logged(self) -> str:
        return "\n".join(self.records.messages)

    def serve(self, answer: Any, tls: Any = None, address: str = "127.0.0.1") -> RawServer:
        """A server on a free port; with *tls*, a context factory, one that speaks TLS."""
        server = RawServer(answer)
        if tls is None:
            port = reactor.listenTCP(0, server, interface=address)
        else:
            port = reactor.listenSSL(0, server, tls, interface=address)
            server.scheme = "https"
        server.port = port.getHost().port
        self.addCleanup(self._stop, port, server)
        return server

    async def _stop_now(self, port: Any, server: RawServer) -> None:
        await port.stopListening()
        self.client.close()
        for conversation in server.conversations:
            if not conversation.is_closed:
                conversation.transport.abortConnection()
                await conversation.closed

    def _stop(self, port: Any, server: RawServer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop_now(port, server))

    def authority(self) -> Authority:
        """Signs certificates into a directory of the test's own."""
        directory = Path(self.mktemp())
        directory.mkdir()
        return Authority(directory)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for *condition*."""
        end = reactor.seconds() + PATIENCE
        while not condition():
            if reactor.seconds() > end:
                raise AssertionError("it did not happen")
            await deferLater(reactor, 0.005)

    async def error_of(self, fetching: Any, kind: type[T]) -> T:
        """What the fetch failed with."""
        try:
            result = await fetching
        except Exception as error:
            if not isinstance(error, kind):
                raise
            return error
        raise self.failureException(f"it did not fail: {result!r}")
