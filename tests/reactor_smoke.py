"""Serves a few requests on the reactor named on the command line and prints "fine"; see test_httpserver.

A client in a thread sends a streamed body that the server takes slowly, reads a large answer slowly, and
half closes.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any


def install(name: str) -> None:
    """Make *name* the reactor of this process."""
    if name == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    elif name == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    elif name == "poll":
        from twisted.internet import pollreactor

        pollreactor.install()
    else:
        from twisted.internet import selectreactor

        selectreactor.install()


def ask(port: int, request: bytes, patience: float = 0) -> bytes:
    """Send *request*, shut the sending side, and return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while piece := sock.recv(65536):
            received += piece
            time.sleep(patience)
        return received


def client(port: int) -> None:
    head = b"%b HTTP/1.1\r\nHost: a\r\n"
    get = head % b"GET /" + b"\r\n"
    assert ask(port, get * 40).count(b"HTTP/1.1 200") == 40
    body = bytes(range(256)) * 1000
    post = head % b"POST /" + b"Content-Length: %d\r\n\r\n" % len(body)
    answer = ask(port, post + body)
    assert answer.endswith(body), len(answer)
    large = ask(port, head % b"GET /large" + b"\r\n", 0.0005)
    assert len(large) > 3_000_000, len(large)
    assert ask(port, b"nonsense\r\n\r\n" + body).startswith(b"HTTP/1.1 400 ")


def main(name: str) -> None:
    install(name)
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, ensureDeferred
    from twisted.internet.task import deferLater
    from twisted.internet.threads import deferToThread

    from cycloneish.httpserver import HTTPServer
    from cycloneish.httputil import HTTPHeaders, ResponseStartLine
    from tests.http.support import Recorder

    assert name in type(reactor).__name__.lower(), reactor

    async def stream(message: Any) -> None:
        connection = message.connection
        await connection.write_headers(ResponseStartLine("", 200, "OK"), HTTPHeaders())
        for _ in range(50):
            await connection.write(b"x" * 65536)
        connection.finish()

    def answer(message: Any) -> None:
        if message.start_line.path == "/large":
            ensureDeferred(stream(message))
        else:
            message.reply(message.body)

    recorder = Recorder(answer)
    recorder.on_data = lambda message: deferLater(reactor, 0.001)
    server = HTTPServer(recorder)
    port: Any = server.listen(0, "127.0.0.1")
    outcome: list[Any] = []

    def done(result: Any) -> Deferred[None]:
        outcome.append(result)
        return server.stop()

    work = deferToThread(client, port.getHost().port)
    work.addBoth(done).addBoth(lambda _: reactor.stop())  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    print("fine" if outcome == [None] else outcome)


if __name__ == "__main__":
    main(sys.argv[1])
