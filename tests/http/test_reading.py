"""Connections that are read together: :mod:`cycloneish.http.reading`."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
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


class Exit(RequestHandler):
    def get(self) -> None:
        sys.exit()


class Hello(RequestHandler):
    def get(self) -> None:
        self.write("hello")


def pause(seconds: float = 0.02) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


class ReadersTests(TestCase):
    """On the reactor of the tests, over sockets."""

    def setUp(self) -> None:
        self.server = HTTPServer(Application([("/", Hello), ("/exit", Exit)]))
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
        transports = self.server.readers.transports

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
    def answers_of_the_others(self, *, reset: bool) -> Any:
        """Have the first of four connections ask or be reset, and return what the others are answered."""
        yield self.connect(4)
        first, *others = self.sockets
        with self.assertLogs(app_log, "ERROR") as logs:
            if reset:
                first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                first.close()
            else:
                first.send(REQUEST.replace(b"/", b"/exit", 1))
            yield pause()
        self.assertIn("Uncaught exception", logs.output[0])
        for connected in others:
            connected.send(REQUEST)
        yield pause()
        return [connected.recv(4096)[-5:] for connected in others]

    @inlineCallbacks
    def test_a_handler_that_exits_ends_its_own_connection(self) -> Any:
        self.assertEqual((yield self.answers_of_the_others(reset=False)), [b"hello"] * 3)

    @inlineCallbacks
    def test_an_error_about_a_lost_connection_is_no_matter_of_the_others(self) -> Any:
        def fail(_: object) -> None:
            raise RuntimeError("broken on_close")

        self.server._reports_close = True
        self.patch(self.server, "on_close", fail)
        answers = yield self.answers_of_the_others(reset=True)
        self.patch(self.server, "on_close", lambda _: None)
        self.assertEqual(answers, [b"hello"] * 3)

    @inlineCallbacks
    def test_connections_are_read_after_everything_was_removed_from_the_reactor(self) -> Any:
        yield self.connect(1)
        readers = self.server.readers
        reactor.removeReader(readers)
        yield self.connect(1)
        self.assertIn(readers, reactor.getReaders())
        for connected in self.sockets:
            connected.send(REQUEST)
        yield pause()
        self.assertEqual([connected.recv(4096)[-5:] for connected in self.sockets], [b"hello"] * 2)

    @inlineCallbacks
    def test_what_one_connection_closes_is_not_read_in_the_same_turn(self) -> Any:
        yield self.connect(2)
        transports = self.server.readers.transports
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
        (transport,) = self.server.readers.transports
        transport.stopReading()
        self.assertNotIn(self.server.readers, reactor.getReaders())
        self.sockets[0].send(REQUEST)
        yield pause()
        with self.assertRaises(BlockingIOError):
            self.sockets[0].recv(1)
        transport.startReading()
        yield pause()
        self.assertTrue(self.sockets[0].recv(4096).endswith(b"hello"))


class Descriptor:
    """Stands for a transport."""

    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor


class DescriptorTests(TestCase):
    """Numbers of descriptors."""

    def test_a_number_that_was_given_again_belongs_to_the_new_one(self) -> None:
        readers = readers_for(reactor, Outbox(reactor))
        if readers is None:
            self.skipTest("this system has no epoll, or the reactor watches no descriptors")
        one, other = socket.socketpair()
        self.addCleanup(other.close)
        number = one.detach()
        old, new = Descriptor(number), Descriptor(number)
        readers.addReader(old)
        os.close(number)  # behind the transport's back
        self.assertEqual(os.dup2(other.fileno(), number), number)
        self.addCleanup(os.close, number)
        readers.addReader(new)
        readers.removeReader(old)
        self.assertEqual(readers._transports, {number: new})
        readers.removeReader(new)
        self.assertNotIn(readers, reactor.getReaders())

    def test_without_a_descriptor_for_an_epoll_the_reactor_reads(self) -> None:
        def fail() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        if hasattr(select, "epoll"):
            self.patch(select, "epoll", fail)
        self.assertIsNone(readers_for(reactor, Outbox(reactor)))


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
