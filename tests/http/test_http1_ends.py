"""The engine without sockets: peers that shut their side or leave, handing over, and stopping."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from cycloneish.httputil import HTTPHeaders, ResponseStartLine
from cycloneish.iostream import StreamClosedError
from tests.http.support import (
    CHUNKED_POST,
    GET,
    HEAD_OF_POST,
    EngineTestCase,
    Peer,
    begin,
    body_of,
    later,
    post,
    stepping,
)


class HalfClose(EngineTestCase):
    def test_idle(self) -> None:
        peer = self.connect()
        peer.send(GET)
        peer.shut()
        self.assertTrue(peer.transport.closed)

    def test_late_answer_is_sent(self) -> None:
        peer = self.connect(lambda message: None)
        left: list[bool] = []
        peer.send(GET)
        self.message.connection.set_close_callback(lambda: left.append(True))
        peer.shut()
        self.assertFalse(peer.transport.closed)
        self.assertEqual(left, [True])
        self.message.reply(b"late")
        answer = peer.received()
        self.assertEqual(body_of(answer), b"late")
        self.assertIn(b"Connection: close", answer)
        self.assertTrue(peer.transport.closed)
        self.assertEqual(left, [True])
        self.assert_at_rest()

    def test_pipelined_requests_are_answered(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET * 3)
        peer.shut()
        for number in range(3):
            self.assertEqual(len(self.recorder.messages), number + 1)
            self.message.reply(b"%d" % number)
            self.turn()
        answer = peer.received()
        self.assertEqual([body[-1:] for body in answer.split(b"HTTP/1.1 200")[1:]], [b"0", b"1", b"2"])
        self.assertTrue(peer.transport.closed)

    def test_burst_is_answered(self) -> None:
        peer = self.connect(pipeline_burst=2)
        peer.send(GET * 5)
        peer.shut()
        self.turns(peer)
        self.assertEqual(len(self.recorder.messages), 5)
        self.assertTrue(peer.transport.closed)

    def test_pipelined_requests_behind_a_full_buffer(self) -> None:
        peer = self.connect()
        peer.stall()
        peer.send(GET * 2)
        peer.shut()
        self.assertFalse(peer.transport.closed)
        peer.read_on()
        self.assertEqual(self.turns(peer).count(b"HTTP/1.1 200"), 2)
        self.assertTrue(peer.transport.closed)

    def test_request_that_waits_is_answered(self) -> None:
        peer = self.connect(lambda message: None)
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        peer.send(GET)
        peer.shut()
        self.assertFalse(peer.transport.closed)
        waiting.callback(None)
        self.message.reply(b"late")
        self.assertEqual(body_of(peer.received()), b"late")
        self.assertTrue(peer.transport.closed)

    def test_incomplete_head_or_body(self) -> None:
        for data, events in ((b"GET / HT", None), (HEAD_OF_POST % 10 + b"abc", ["close"])):
            peer = self.connect()
            peer.send(data)
            peer.shut()
            self.assertTrue(peer.transport.closed)
            if events:
                self.assertEqual(self.message.events, events)
            self.assert_at_rest()

    def test_body_that_waits_and_will_never_be_complete(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(HEAD_OF_POST % 10 + b"abc")
        peer.shut()
        waiting.callback(None)
        self.assertTrue(peer.transport.closed)
        self.assertEqual(self.message.events, ["close"])

    def test_refusal_behind_a_half_close(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET + b"nonsense\r\n\r\n")
        peer.shut()
        self.message.reply()
        self.turn()
        self.assertIn(b"400 Bad Request", peer.received())
        self.assertTrue(peer.transport.closed)

    def test_while_draining(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = lambda message: message.reply(b"early")
        peer.send(HEAD_OF_POST % 10 + b"abc")
        self.turn()
        peer.shut()
        self.assertTrue(peer.transport.closed)
        self.assertEqual(self.message.events, [])


class ClientLeaves(EngineTestCase):
    def test_before_the_request_is_complete(self) -> None:
        for data in (HEAD_OF_POST % 10, HEAD_OF_POST % 10 + b"abc", CHUNKED_POST + b"3\r\nabc\r\n"):
            peer = self.connect()
            peer.send(data)
            peer.leave()
            self.assertEqual(self.message.events, ["close"])
            self.assertEqual(self.recorder.closed, 1)
            self.assert_at_rest()

    def test_before_it_is_answered(self) -> None:
        peer = self.connect(lambda message: None)
        left: list[bool] = []
        peer.send(GET)
        self.message.connection.set_close_callback(lambda: left.append(True))
        peer.leave()
        self.assertEqual(left, [True])
        self.assertEqual(self.message.events, ["finish"])
        self.message.reply(b"nobody reads this")
        self.assert_at_rest()

    def test_with_pipelined_requests_and_a_turn_to_come(self) -> None:
        peer = self.connect(pipeline_burst=2)
        peer.send(GET * 5)
        peer.leave()
        self.turns(peer)
        self.assertEqual(len(self.recorder.messages), 2)
        self.assert_at_rest()

    def test_while_a_piece_is_dealt_with(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(post(b"abc"))
        peer.leave()
        self.assertEqual(self.message.events, ["close"])
        waiting.errback(StreamClosedError())
        self.assertEqual(self.message.events, ["close"])

    def test_writes_fail_for_those_who_wait(self) -> None:
        peer = self.connect(begin)
        peer.send(GET)
        peer.stall()
        waited_for = self.message.connection.write(b"x")
        waited_for.addErrback(lambda failure: failure.trap(StreamClosedError) and "gone")
        chained: Deferred[Any] = Deferred()
        chained.addCallback(lambda _: self.message.connection.write(b"z"))
        self.message.connection.write(b"y")
        peer.leave()
        self.assertEqual(self.successResultOf(waited_for), "gone")
        self.failureResultOf(self.message.connection.write(b"y"), StreamClosedError)
        chained.callback(None)
        self.failureResultOf(chained, StreamClosedError)
        # What nobody waited for leaves no unhandled error behind; trial would report it.

    def test_failing_callbacks_are_logged(self) -> None:
        peer = self.connect()
        peer.send(HEAD_OF_POST % 10)
        self.message.on_connection_close = lambda: 1 / 0
        self.message.connection.set_close_callback(lambda: 1 / 0)
        with self.assertLogs("cycloneish.application", "ERROR") as logs:
            peer.leave()
        self.assertEqual(len(logs.records), 2)
        self.assert_at_rest()


@implementer(IHalfCloseableProtocol)
class Successor(Protocol):
    """Writes down what it gets."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")

    def connectionLost(self, reason: Any = None) -> None:
        self.events.append("lost")


class Detach(EngineTestCase):
    def test_hand_over(self) -> None:
        successor = Successor()
        peer = self.connect(lambda message: message.connection.detach(successor))
        peer.send(GET + b"left over")
        peer.send(b"more")
        peer.protocol.readConnectionLost()
        peer.protocol.writeConnectionLost()
        self.assertFalse(peer.transport.closed)
        self.assertIsNone(peer.transport.producer)
        peer.leave()
        self.assertEqual(successor.events, ["made", b"left over", b"more", "read lost", "write lost", "lost"])
        self.assertEqual(self.message.events, ["finish"])
        self.assert_at_rest()

    def test_late_hand_over(self) -> None:
        successor = Successor()
        peer = self.connect(lambda message: None)
        peer.send(GET + b"left over")
        self.assertFalse(peer.is_read)
        peer.protocol.readConnectionLost()
        self.assertIs(self.message.connection.detach(successor), peer.transport)
        self.assertEqual(successor.events, ["made", b"left over", "read lost"])
        self.assertTrue(peer.is_read)
        self.assertEqual(self.turns(peer), b"")

    def test_successor_that_cannot_be_half_closed(self) -> None:
        peer = self.connect(lambda message: message.connection.detach())
        peer.send(GET)
        peer.protocol.writeConnectionLost()
        self.assertFalse(peer.transport.closed)
        peer.protocol.readConnectionLost()
        self.assertTrue(peer.transport.closed)

    def test_writes_that_wait(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET)
        peer.stall()
        written = self.message.connection.write_headers(ResponseStartLine("", 101, "Go"), HTTPHeaders())
        self.assertNoResult(written)
        self.message.connection.detach(Successor())
        self.successResultOf(written)

    def test_only_what_was_read_and_not_answered(self) -> None:
        peer = self.connect()
        peer.send(GET)
        self.assertRaises(RuntimeError, self.message.connection.detach)
        self.recorder.on_headers = lambda message: message.connection.detach()
        with self.assertLogs("cycloneish.application", "ERROR"):
            peer.send(post(b"abc"))
        self.assertTrue(peer.transport.closed)

    def test_close_and_abort_reach_the_successor(self) -> None:
        for method in ("close", "abort"):
            successor = Successor()
            peer = self.connect(lambda message: message.connection.detach(successor))  # noqa: B023
            peer.send(GET)
            getattr(self.message.connection.stream, method)()
            self.assertEqual(successor.events, ["made", "lost"])
            self.assert_at_rest()

    def test_successor_that_fails(self) -> None:
        class Fails(Successor):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        peer = self.connect(lambda message: message.connection.detach(Fails()))
        with self.assertLogs("cycloneish.application", "ERROR"):
            peer.send(GET + b"x")
        self.assertTrue(peer.transport.closed)


class Stopping(EngineTestCase):
    def test_idle_connections_close_at_once(self) -> None:
        peer = self.connect()
        peer.send(GET)
        self.successResultOf(self.server.stop())
        self.assertTrue(peer.transport.closed)
        self.assert_at_rest()

    def test_requests_in_flight_are_answered(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET)
        stopped = self.server.stop()
        self.assertNoResult(stopped)
        self.message.reply(b"last")
        self.assertIn(b"Connection: close", peer.received())
        self.successResultOf(stopped)
        self.assert_at_rest()

    def test_streams_that_promised_to_keep_the_connection_close_it_as_well(self) -> None:
        peer = self.connect(begin)
        peer.send(GET)
        stopped = self.server.stop()
        self.message.connection.finish()
        self.successResultOf(stopped)
        self.assertTrue(peer.transport.closed)

    def test_pipelined_requests_in_their_turn(self) -> None:
        peer = self.connect(pipeline_burst=2)
        peer.send(GET * 3)
        stopped = self.server.stop()
        self.assertNoResult(stopped)
        self.assertEqual(self.turns(peer).count(b"Connection: close"), 1)
        self.successResultOf(stopped)

    def test_unread_body_is_drained_first(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = lambda message: message.reply(b"early")
        peer.send(HEAD_OF_POST % 10)
        self.turn()
        stopped = self.server.stop()
        self.assertNoResult(stopped)
        peer.send(b"x" * 10)
        self.successResultOf(stopped)

    def test_what_never_ends_is_aborted(self) -> None:
        peer = self.connect(lambda message: None, shutdown_timeout=10)
        peer.send(GET)
        left: list[bool] = []
        self.message.connection.set_close_callback(lambda: left.append(True))
        stopped = self.server.stop()
        stepping(self.clock, 9)
        self.assertNoResult(stopped)
        stepping(self.clock, 2)
        self.successResultOf(stopped)
        self.assertEqual(left, [True])
        self.assertTrue(peer.transport.aborted)
        self.assert_at_rest()

    def test_half_closed_peers_are_not_waited_for(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET)
        peer.shut()
        self.successResultOf(self.server.stop())
        self.assertTrue(peer.transport.aborted)

    def test_close_all_connections(self) -> None:
        peer = self.connect(lambda message: None)
        left: list[bool] = []
        peer.send(GET)
        self.message.connection.set_close_callback(lambda: left.append(True))
        others = [Peer(self.server) for _ in range(2)]
        self.successResultOf(self.server.close_all_connections())
        self.assertTrue(all(one.transport.aborted for one in [peer, *others]))
        self.assertEqual(left, [True])
        self.successResultOf(self.server.close_all_connections())
        self.assert_at_rest()
