"""A small HTTP client for loads in one process: one request after the other on a kept connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure


class Client(Protocol):
    """Made by :meth:`connect`; :meth:`get` may be called again when the answer before has arrived."""

    def __init__(self) -> None:
        self._received = b""
        self._waiting: Deferred[tuple[int, bytes]] | None = None

    @classmethod
    def connect(cls, reactor: Any, port: int) -> Deferred[Client]:
        return connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), cls())

    def get(self, path: str) -> Deferred[tuple[int, bytes]]:
        """Fires with the status and the body."""
        waiting = self._waiting = Deferred()
        self.transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return waiting

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(body) < length:
            return
        self._received = body[length:]
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        waiting.callback((int(lines[0].split()[1]), body[:length]))

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(reason)
