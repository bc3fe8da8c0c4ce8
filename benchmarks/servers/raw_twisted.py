"""The limit: a Twisted protocol that looks for the end of a head and writes a fixed reply.

It parses nothing and checks nothing. What a real server adds to its CPU time is the price of HTTP, of routing
and of the handler; what this one takes is the price of the reactor, the transport and the kernel.
"""

from __future__ import annotations

from benchmarks.servers import common

if __name__ == "__main__":
    options = common.arguments()
    common.install_twisted_reactor(options.uvloop)

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol


def reply(body: bytes, content_type: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nServer: raw\r\nContent-Type: %b\r\nDate: Sun, 22 Nov 2026 21:00:00 GMT\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (content_type, len(body), body)
    )


PLAIN = reply(common.HELLO, b"text/plain")
JSON = reply(b'{"id": 42, "q": "abc"}', b"application/json; charset=UTF-8")


class Fixed(Protocol):
    def dataReceived(self, data: bytes) -> None:
        answer = JSON if data.startswith(b"GET /items/") else PLAIN
        self.transport.write(answer * data.count(b"\r\n\r\n"))


if __name__ == "__main__":
    reactor.listenTCP(options.port, Factory.forProtocol(Fixed), interface="127.0.0.1")
    reactor.run()
