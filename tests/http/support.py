"""An engine without sockets: bytes in, bytes out, and a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.limits import Limits
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    ResponseStartLine,
)

HEAD_OF_POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Transport(StringTransport):
    """Says what a TCP transport says when it is half closed, closed or aborted."""

    protocol: Any = None
    write_closed = False
    aborted = False
    #: What a TCP transport holds for a peer that does not read; a test sets its length.
    dataBuffer = b""
    offset = 0
    _tempDataLen = 0

    def loseWriteConnection(self) -> None:
        self.write_closed = True
        if not self.dataBuffer:
            self.protocol.writeConnectionLost()

    def loseConnection(self) -> None:
        super().loseConnection()
        self._lost()

    def abortConnection(self) -> None:
        self.aborted = True
        self._lost()

    def _lost(self) -> None:
        protocol, self.protocol = self.protocol, None
        self.connected = False
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        return self.protocol is None


class Peer:
    """One client of *server*."""

    def __init__(self, server: HTTPServer) -> None:
        self.transport = Transport()
        self.protocol: Any = server.buildProtocol(None)
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send *data* and return what came back at once."""
        if self.transport.protocol is not None:
            self.protocol.dataReceived(data)
        return self.received()

    def received(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return data

    def leave(self) -> None:
        self.transport._lost()

    def shut(self) -> bytes:
        """Half close, and return what came back at once."""
        self.protocol.readConnectionLost()
        return self.received()

    def stall(self, size: int = 100_000) -> None:
        """Stop reading: the transport's buffer fills."""
        self.transport.dataBuffer = bytes(size)
        self.protocol.pauseProducing()

    def read_on(self) -> None:
        """Take everything, as a peer does that had stalled."""
        self.transport.dataBuffer = b""
        self.protocol.resumeProducing()

    @property
    def is_read(self) -> bool:
        """Whether the server reads from this peer."""
        return self.transport.producerState == "producing"


class Recorder(HTTPServerConnectionDelegate):
    """Writes down what the engine says, and answers as *answer* does.

    :param answer: called at the end of a request with its message.
    """

    def __init__(self, answer: Callable[[Message], Any] | None = None) -> None:
        self.answer = answer or (lambda message: message.reply(message.body))
        self.messages: list[Message] = []
        self.closed = 0
        self.on_headers: Callable[[Message], Any] = lambda message: None
        self.on_data: Callable[[Message], Any] = lambda message: None

    def start_request(self, server_conn: object, request_conn: Any) -> Message:
        message = Message(self, request_conn)
        self.messages.append(message)
        return message

    def on_close(self, server_conn: object) -> None:
        self.closed += 1


class Message(HTTPMessageDelegate):
    start_line: Any = None
    headers: Any = None

    def __init__(self, recorder: Recorder, connection: Any) -> None:
        self.recorder = recorder
        self.connection = connection
        self.pieces: list[bytes] = []
        self.events: list[str] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def headers_received(self, start_line: Any, headers: Any) -> Any:
        self.start_line = start_line
        self.headers = headers
        return self.recorder.on_headers(self)

    def data_received(self, chunk: bytes) -> Any:
        self.pieces.append(chunk)
        return self.recorder.on_data(self)

    def finish(self) -> None:
        self.events.append("finish")
        self.recorder.answer(self)

    def on_connection_close(self) -> None:
        self.events.append("close")

    def reply(self, body: bytes = b"", code: int = 200, length: bool = True, **headers: str) -> Any:
        fields = HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()})
        if length:
            fields["Content-Length"] = str(len(body))
        done = self.connection.write_headers(ResponseStartLine("", code, "Fine"), fields, body)
        self.connection.finish()
        return done


def stepping(clock: Clock, seconds: float, step: float = 0.25) -> None:
    """Turn *clock* in steps small enough for every timer in between."""
    clock.pump([step] * int(seconds / step))


def make_server(recorder: Any, **options: Any) -> tuple[HTTPServer, Clock]:
    clock = Clock()
    return HTTPServer(recorder, reactor=clock, **options), clock


def body_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def later() -> Deferred[None]:
    return Deferred()


def post(body: bytes) -> bytes:
    return HEAD_OF_POST % len(body) + body


def get(path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: a", *lines, "", ""]).encode()


def begin(message: Any, **headers: str) -> Any:
    """Write the head of a streamed response."""
    fields = HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()})
    return message.connection.write_headers(ResponseStartLine("", 200, "Fine"), fields)


class EngineTestCase(SynchronousTestCase):
    recorder: Recorder

    def connect(self, answer: Any = None, **options: Any) -> Peer:
        self.recorder = Recorder(answer)
        limits = {name: options.pop(name) for name in list(options) if name in Limits.__slots__}
        self.server, self.clock = make_server(self.recorder, limits=Limits(**limits), **options)
        return Peer(self.server)

    @property
    def message(self) -> Any:
        return self.recorder.messages[-1]

    def turn(self) -> None:
        """One turn of the reactor."""
        self.clock.advance(0)

    def turns(self, peer: Peer, number: int = 20) -> bytes:
        for _ in range(number):
            self.turn()
        return peer.received()

    def assert_at_rest(self) -> None:
        """Nothing is left of closed connections."""
        self.assertEqual(self.server.deadlines.connections, set())
        self.assertEqual(self.server._connections, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
