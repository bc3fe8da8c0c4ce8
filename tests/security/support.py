"""What the attacks share: a server on a free port, a raw client, a captured log, and a measure of time's
growth.

:class:`SecurityTestCase` puts them together. The client speaks bytes, not HTTP: a test says what goes over
the wire.
"""

from __future__ import annotations

import inspect
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cycloneish.http.limits import Limits
from cycloneish.httpserver import HTTPServer
from cycloneish.web import Application, RequestHandler

#: What an attacker hopes the server takes for a second request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"

#: Seconds after which a test gives up waiting for a server that should have answered.
PATIENCE = 10.0


def request(
    target: str = "/",
    *headers: str | bytes,
    method: str = "GET",
    body: bytes | None = None,
    host: str | None = "example.com",
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of a request. A body brings its Content-Length, unless a header says Transfer-Encoding."""
    lines = [f"{method} {target} {version}".encode("latin-1")]
    if host is not None:
        lines.append(f"Host: {host}".encode("latin-1"))
    lines += [line.encode("latin-1") if isinstance(line, str) else line for line in headers]
    framed = any(line.lower().startswith((b"transfer-encoding", b"content-length")) for line in lines)
    if body is not None and not framed:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + (body or b"")


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunked coding."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def multipart(*parts: bytes, boundary: bytes = b"1234", end: bytes = b"--1234--\r\n") -> bytes:
    """A multipart body; each part is its headers, an empty line and its content."""
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


def part(name: str, content: bytes = b"x", filename: str | None = None) -> bytes:
    """One well-formed part for :func:`multipart`."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    return disposition.encode() + b"\r\n\r\n" + content


def post_multipart(body: bytes, target: str = "/", *headers: str) -> bytes:
    """A POST of a multipart body with the boundary ``1234``."""
    return request(
        target, "Content-Type: multipart/form-data; boundary=1234", *headers, method="POST", body=body
    )


@dataclass
class Response:
    """One answer as it came over the wire."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def parse_responses(data: bytes) -> list[Response]:
    """Split what the server sent into its answers, 1xx included. Raises ValueError on bytes that are none."""
    answers = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            raise ValueError(f"incomplete head: {head[:200]!r}")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = first.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(f"not a response: {first[:200]!r}")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        answer = Response(int(status), reason, headers, b"")
        answers.append(answer)
        length = answer.header("Content-Length")
        if answer.status < 200 or answer.status in (204, 304):
            data = rest
        elif answer.header("Transfer-Encoding") == "chunked":
            answer.body, data = _unchunk(rest)
        elif length is not None:
            answer.body, data = rest[: int(length)], rest[int(length) :]
        else:
            # The refusal of a broken request has neither length nor body.
            answer.body, data = rest, b""
    return answers


def _unchunk(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data


class Peer(Protocol):
    """A client that sends what it is told and keeps what it gets."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self._look()

    def _look(self) -> None:
        for entry in self._waiting[:]:
            condition, waiting = entry
            if self.closed or condition():
                self._waiting.remove(entry)
                if not waiting.called:
                    waiting.callback(None)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until ``condition()`` holds, the server closes, or time is up; the test looks which it was."""
        if self.closed or condition():
            return
        waiting: Deferred[None] = Deferred()
        entry = (condition, waiting)
        self._waiting.append(entry)
        call = reactor.callLater(seconds, waiting.callback, None)
        try:
            await waiting
        finally:
            if call.active():
                call.cancel()
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def until_closed(self, seconds: float = PATIENCE) -> None:
        await self.until(lambda: False, seconds)

    async def until_answers(self, count: int, seconds: float = PATIENCE) -> None:
        """Wait for the heads of ``count`` answers, and a moment more for their bodies."""

        def complete() -> bool:
            try:
                return len([a for a in parse_responses(bytes(self.received)) if a.status >= 200]) >= count
            except (ValueError, IndexError):
                return False

        await self.until(complete, seconds)

    @property
    def answers(self) -> list[Response]:
        return parse_responses(bytes(self.received))

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def drop(self) -> None:
        """Close without a farewell, as a client does that crashed."""
        if not self.closed:
            self.transport.abortConnection()


class LogCapture(logging.Handler):
    """Keeps every record of cycloneish's loggers, and keeps them out of the test's output."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger("cycloneish")
        self._saved = self._logger.level, self._logger.propagate
        self._logger.addHandler(self)
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.level, self._logger.propagate = self._saved
        super().close()

    def clear(self) -> None:
        self.records.clear()

    def of(self, *names: str) -> list[logging.LogRecord]:
        """The records of these loggers (``"access"``, ``"application"``, ``"general"``)."""
        return [record for record in self.records if record.name.rpartition(".")[2] in names]

    @property
    def serious(self) -> list[str]:
        """What was logged at ERROR and above, or with a traceback: there is never a reason for it here."""
        return [
            self.format(record)
            for record in self.records
            if record.levelno >= logging.ERROR or record.exc_info
        ]


class Recorder(RequestHandler):
    """Writes down in ``application.seen`` what reached the application, and answers with the body it got."""

    SUPPORTED_METHODS = (*RequestHandler.SUPPORTED_METHODS, "BREW")

    def prepare(self) -> None:
        self.application.seen.append((self.request.method, self.request.uri))

    def get(self, *args: str) -> None:
        self.write(self.request.body or b"ok")

    head = post = put = delete = patch = options = get  # type: ignore[assignment]


class RecordingApplication(Application):
    """An application that knows which requests it was given."""

    def __init__(self, handlers: Iterable[Any] | None = None, **settings: Any) -> None:
        super().__init__(list(handlers) if handlers is not None else [("/.*", Recorder)], **settings)
        self.seen: list[tuple[str, str]] = []


@dataclass
class Served:
    """A server that listens, and its port."""

    server: HTTPServer
    application: Any
    port: int
    peers: list[Peer] = field(default_factory=list)


class MemoryTransport(StringTransport):
    """A transport without a socket, which closes when told to."""

    def __init__(self) -> None:
        super().__init__(
            hostAddress=IPv4Address("TCP", "127.0.0.1", 80),
            peerAddress=IPv4Address("TCP", "127.0.0.1", 54321),
        )
        self.protocol: Any = None
        self.gone = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        super().loseConnection()
        self._leave()

    def abortConnection(self) -> None:
        super().abortConnection()
        self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            reactor.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))


def make_server(application: Any, **options: Any) -> HTTPServer:
    """A server; options that are no argument of its constructor are fields of :class:`Limits`."""
    own = inspect.signature(HTTPServer).parameters
    limits = {name: options.pop(name) for name in list(options) if name not in own}
    return HTTPServer(application, limits=Limits(**limits), **options)


class SecurityTestCase(TestCase):
    """A test with a server, a raw client and a captured log."""

    timeout = 60

    def setUp(self) -> None:
        self.logs = LogCapture()
        self.addCleanup(self.logs.close)
        self._served: list[Served] = []
        self.addCleanup(self._stop)

    async def _stop(self) -> None:
        """Close every connection of both sides and the ports, so that no test leaves a dirty reactor."""
        for served in self._served:
            for peer in served.peers:
                peer.drop()
            await DeferredList([d for d in (served.server.stop(),) if isinstance(d, Deferred)])
            closing = served.server.close_all_connections()
            if closing is not None:
                await closing
            for peer in served.peers:
                await peer.until_closed(1)
        # One turn for sockets whose closing was only asked for.
        await deferLater(reactor, 0)

    def serve(self, application: Any, **options: Any) -> Served:
        """Start a server on a free port of 127.0.0.1. ``options``: the server's, or of its Limits."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        server = make_server(application, **options)
        server.add_socket(listening)
        served = Served(server, application, listening.getsockname()[1])
        self._served.append(served)
        return served

    async def connect(self, served: Served) -> Peer:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", served.port)
        peer: Peer = await connectProtocol(endpoint, Peer())
        served.peers.append(peer)
        return peer

    async def exchange(self, served: Served, data: bytes, answers: int = 1) -> Peer:
        """Send ``data`` and wait for so many answers, or for the server to close."""
        peer = await self.connect(served)
        peer.send(data)
        await peer.until_answers(answers)
        return peer

    async def fetch(self, served: Served, data: bytes) -> Response:
        """Send one request and return its final answer."""
        peer = await self.exchange(served, data)
        final = [answer for answer in peer.answers if answer.status >= 200]
        self.assertEqual(len(final), 1, bytes(peer.received))
        peer.drop()
        return final[0]

    async def attack(self, served: Served, data: bytes, behind: bytes = SMUGGLED) -> Peer:
        """Send ``data`` with a smuggled request behind it and wait for the server to close."""
        self.logs.clear()
        peer = await self.connect(served)
        peer.send(data + behind)
        await peer.until_closed(5)
        return peer

    async def assert_refused(
        self, served: Served, data: bytes, *statuses: int, behind: bytes = SMUGGLED
    ) -> None:
        """The request gets one 4xx, the connection is closed, nothing is smuggled, one line is logged."""
        peer = await self.attack(served, data, behind)
        what = f"{data[:120]!r} -> {bytes(peer.received)[:120]!r}"
        self.assertTrue(peer.closed, f"not closed: {what}")
        self.assertEqual(len(peer.answers), 1, what)
        self.assertIn(peer.statuses[0], statuses or (400,), what)
        self.assert_nothing_smuggled(served, what)
        general = self.logs.of("general")
        self.assertEqual([record.levelno for record in general], [logging.INFO], what)
        self.assertRegex(
            general[0].getMessage(), r"^(Malformed HTTP message|Unsatisfiable read) from 127\.0\.0\.1: \S"
        )
        self.assertEqual(self.logs.serious, [], what)

    def assert_nothing_smuggled(self, served: Served, what: str = "") -> None:
        self.assertNotIn("/smuggled", [uri for _, uri in served.application.seen], what)

    def memory_peer(self, server: HTTPServer) -> tuple[Any, MemoryTransport]:
        """A connection without a socket: feed it with ``dataReceived``, read ``transport.value()``."""
        transport = MemoryTransport()
        protocol = server.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    async def pause(self, seconds: float = 0.0) -> None:
        await deferLater(reactor, seconds)

    def assert_linear(
        self, run: Callable[[Any], object], build: Callable[[int], Any], size: int, factor: float = 3.0
    ) -> None:
        """``time(2n) <= factor * time(n)``, least of several times, tried again when the machine was busy.

        Doubled twice, so that quadratic work (a factor of 16 against the 9 allowed) cannot hide in a constant
        part.
        """

        def least(data: Any) -> float:
            best = float("inf")
            for _ in range(5):
                started = time.perf_counter()
                run(data)
                best = min(best, time.perf_counter() - started)
            return best

        small, large = build(size), build(4 * size)
        ratios = []
        for _ in range(4):
            ratio = least(large) / max(least(small), 1e-5)
            if ratio <= factor * factor:
                return
            ratios.append(round(ratio, 1))
        self.fail(f"4 times the input took {ratios} times as long")
