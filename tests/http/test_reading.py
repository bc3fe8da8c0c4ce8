"""Connections that are read together: :mod:`cycloneish.http.reading`."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cycloneish.http.reading import readers_for
from cycloneish.http.transport import Outbox, Writer
from cycloneish.httpserver import HTTPServer
from cycloneish.log import app_log
from cycloneish.web import Application, RequestHandler

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Hello(RequestHandler):
    def get(self) -> None:
        self.write("hello")


def pause(seconds: float = 0.02) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


class ReadersTests(TestCase):
    """On the reactor of the tests, over sockets."""

    def setUp(self) -> None:
        self.server = HTTPServer(Application([("/", Hello)]))
        self.port = self.server.listen(0, "127.0.0.1").getHost().port
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.clean)
        if self.server.readers is None:
            self.skipTest("this system has no epoll, or the reactor watches no descriptors")

    def clean(self) -> Deferred[None]:
        for connected in self.sockets:
            connected.close()
        return self.server.stop().addCallback(lambda _: self.server.close_all_connections())

    @inlineCallbacks
    def connect(self, count: int) -> Any:
        for _ in range(count):
            connected = socket.create_connection(("127.0.0.1", self.port))
            connected.setblocking(False)
            self.sockets.append(connected)
        yield pause()

    @inlineCallbacks
    def test_one_reader_stands_for_all_connections(self) -> Any:
        readers = self.server.readers
        self.assertNotIn(readers, reactor.getReaders())
        yield self.connect(20)
        self.assertIn(readers, reactor.getReaders())
        self.assertEqual(len([r for r in reactor.getReaders() if "Server" in type(r).__name__]), 0)
        for connected in self.sockets:
            connected.send(REQUEST)
        yield pause()
        for connected in self.sockets:
            self.assertTrue(connected.recv(4096).endswith(b"hello"))
        for connected in self.sockets:
            connected.close()
        yield pause()
        self.assertNotIn(readers, reactor.getReaders())

    @inlineCallbacks
    def test_a_transport_that_raises_is_lost_and_the_others_are_read(self) -> Any:
        yield self.connect(3)
        transports = list(self.server.readers._descriptors)

        def fail() -> None:
            raise RuntimeError("broken transport")

        transports[1].doRead = fail
        with self.assertLogs(app_log, "ERROR") as logs:
            for connected in self.sockets:
                connected.send(REQUEST)
            yield pause()
        self.assertIn("broken transport", logs.output[0])
        answers = [connected.recv(4096) for connected in (self.sockets[0], self.sockets[2])]
        self.assertTrue(all(answer.endswith(b"hello") for answer in answers))
        try:
            self.assertEqual(self.sockets[1].recv(4096), b"")
        except ConnectionResetError:
            pass

    @inlineCallbacks
    def test_what_one_connection_closes_is_not_read_in_the_same_turn(self) -> Any:
        yield self.connect(2)
        transports = list(self.server.readers._descriptors)
        read: list[Any] = []
        for transport in transports:
            # Whichever is read first ends the other.
            def do_read(transport: Any = transport) -> None:
                read.append(transport)
                transport.socket.recv(4096)
                for other in transports:
                    if other is not transport:
                        other.connectionLost(Failure(ConnectionLost()))

            transport.doRead = do_read
        for connected in self.sockets:
            connected.send(REQUEST)
        yield pause()
        self.assertEqual(len(read), 1)

    @inlineCallbacks
    def test_a_reactor_that_gives_up_ends_every_connection(self) -> Any:
        yield self.connect(2)
        self.server.readers.connectionLost(Failure(ConnectionLost()))
        yield pause()
        self.assertEqual([connected.recv(1) for connected in self.sockets], [b"", b""])
        self.assertNotIn(self.server.readers, reactor.getReaders())

    @inlineCallbacks
    def test_an_unwatched_transport_is_not_read(self) -> Any:
        yield self.connect(1)
        (transport,) = self.server.readers._descriptors
        transport.stopReading()
        self.assertNotIn(self.server.readers, reactor.getReaders())
        self.sockets[0].send(REQUEST)
        yield pause()
        with self.assertRaises(BlockingIOError):
            self.sockets[0].recv(1)
        transport.startReading()
        yield pause()
        self.assertTrue(self.sockets[0].recv(4096).endswith(b"hello"))


class AdoptTests(TestCase):
    """What is not read together."""

    def test_other_transports_stay_with_their_reactor(self) -> None:
        server = HTTPServer(Application([("/", Hello)]))
        self.addCleanup(server.stop)
        transport = StringTransport()
        connection = server.buildProtocol(None)
        connection.makeConnection(transport)
        self.assertNotIn("readers", vars(server))
        connection.connectionLost(Failure(ConnectionLost()))

    def test_other_reactors_have_none(self) -> None:
        self.assertIsNone(readers_for(Clock(), Outbox(Clock())))


class OutboxTests(TestCase):
    """The outbox while connections are read."""

    def test_what_is_added_within_is_sent_at_its_end_without_a_timer(self) -> None:
        clock = Clock()
        outbox = Outbox(clock)
        sent: list[str] = []

        class Recorder(Writer):
            def flush(self) -> None:
                sent.append("flushed")

        with outbox:
            outbox.add(Recorder(None))
            outbox.add(Recorder(None))
            self.assertEqual(sent, [])
        self.assertEqual(sent, ["flushed", "flushed"])
        self.assertEqual(clock.getDelayedCalls(), [])
        outbox.add(Recorder(None))
        self.assertEqual(len(clock.getDelayedCalls()), 1)
