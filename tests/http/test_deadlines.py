"""Time-outs: of the timer itself, and of slow, idle and stalled peers."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.deadlines import NEVER, Deadlines
from tests.http.support import GET, later, status_of, stepping
from tests.http.test_http1 import CHUNKED_POST, HEAD_OF_POST, EngineTestCase, begin


class Watched:
    def __init__(self, deadline: float, act: Any = None) -> None:
        self.deadline = deadline
        self.passed = 0
        self.act = act or (lambda watched: None)

    def deadline_passed(self) -> None:
        self.passed += 1
        self.deadline = NEVER
        self.act(self)


class TheTimer(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, 2.0)

    def test_looks_at_those_whose_time_has_come(self) -> None:
        soon, late, never = Watched(1), Watched(3), Watched(NEVER)
        for watched in (soon, late, never):
            self.deadlines.add(watched)
        stepping(self.clock, 2)
        self.assertEqual((soon.passed, late.passed, never.passed), (1, 0, 0))
        stepping(self.clock, 2)
        self.assertEqual((soon.passed, late.passed, never.passed), (1, 1, 0))

    def test_runs_only_while_there_is_something_to_watch(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        watched = Watched(NEVER)
        self.deadlines.add(watched)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.remove(watched)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deadlines.remove(watched)

    def test_the_last_one_leaves_when_somebody_has_cancelled_every_delayed_call(self) -> None:
        connection = Watched(NEVER)
        self.deadlines.add(connection)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.deadlines.remove(connection)
        self.deadlines.add(connection)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_last_one_leaves_during_a_tick(self) -> None:
        watched = Watched(0, self.deadlines.remove)
        self.deadlines.add(watched)
        self.clock.advance(1)
        self.assertEqual(watched.passed, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_joins_during_a_tick(self) -> None:
        self.deadlines.add(Watched(0, lambda watched: self.deadlines.add(Watched(NEVER))))
        self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_failure_of_one_is_not_that_of_the_others(self) -> None:
        def fails(watched: Watched) -> None:
            raise ZeroDivisionError

        one, other, later_one = Watched(0, fails), Watched(0, fails), Watched(1)
        for watched in (one, other, later_one):
            self.deadlines.add(watched)
        with self.assertLogs("cycloneish.application", "ERROR") as logs:
            self.clock.advance(0.5)
        self.assertEqual(len(logs.records), 2)
        stepping(self.clock, 1)
        self.assertEqual((one.passed, other.passed, later_one.passed), (1, 1, 1))


class Reading(EngineTestCase):
    def test_idle(self) -> None:
        for first in (b"", GET):
            peer = self.connect(idle_connection_timeout=8)
            peer.send(first)
            stepping(self.clock, 7.5)
            self.assertFalse(peer.transport.closed)
            stepping(self.clock, 2)
            self.assertTrue(peer.transport.closed)
            self.assertEqual(peer.received(), b"")
            self.assert_at_rest()

    def test_slow_head(self) -> None:
        peer = self.connect(header_timeout=8)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            answer = peer.send(b"GET / HTTP/1.1\r\n")
            for _ in range(10):
                stepping(self.clock, 1)
                answer += peer.send(b"X: y\r\n")
        self.assertEqual(len(logs.records), 1)
        self.assertEqual(status_of(answer), 408)
        self.assertTrue(peer.transport.write_closed)

    def test_empty_lines_do_not_renew_the_time(self) -> None:
        peer = self.connect(idle_connection_timeout=8, header_timeout=8)
        for piece in (b"\r\n", b"\r", b"\n") * 4:
            peer.send(piece)
            stepping(self.clock, 1)
        self.assertTrue(peer.transport.write_closed)

    def test_body_as_a_whole(self) -> None:
        for head in (HEAD_OF_POST % 100, CHUNKED_POST + b"64\r\n"):
            peer = self.connect(body_timeout=8)
            with self.assertLogs("cycloneish.general", "INFO") as logs:
                answer = peer.send(head)
                for _ in range(10):
                    answer += peer.send(b"x")
                    stepping(self.clock, 1)
            self.assertIn("Timeout reading body", logs.output[0])
            self.assertEqual(len(logs.records), 1)
            self.assertEqual(status_of(answer), 408)
            self.assertEqual(self.message.events, ["close"])

    def test_body_time_of_one_request(self) -> None:
        peer = self.connect()
        self.recorder.on_data = lambda message: message.connection.set_body_timeout(4)
        peer.send(HEAD_OF_POST % 100 + b"x")
        stepping(self.clock, 6)
        self.assertEqual(status_of(peer.received()), 408)

    def test_speed_of_a_body(self) -> None:
        peer = self.connect(body_grace=8, body_min_rate=10)
        peer.send(HEAD_OF_POST % 1000)
        for _ in range(20):
            peer.send(b"x" * 20)
            stepping(self.clock, 1)
        self.assertEqual(peer.received(), b"", "fast enough")
        stepping(self.clock, 40)
        self.assertEqual(status_of(peer.received()), 408)

    def test_slow_application_is_not_the_peers_fault(self) -> None:
        peer = self.connect(body_timeout=8)
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(HEAD_OF_POST % 10 + b"x")
        stepping(self.clock, 60)
        self.assertEqual(peer.received(), b"")
        waiting.callback(None)
        self.recorder.on_data = lambda message: None
        stepping(self.clock, 6)
        self.assertEqual(peer.received(), b"", "its own time goes on where it stopped")
        stepping(self.clock, 4)
        self.assertEqual(status_of(peer.received()), 408)

    def test_answer_may_take_as_long_as_it_wants(self) -> None:
        peer = self.connect(lambda message: None, idle_connection_timeout=4, body_timeout=4)
        peer.send(GET)
        stepping(self.clock, 100)
        self.message.reply()
        self.assertEqual(status_of(peer.received()), 200)


class Writing(EngineTestCase):
    def test_stalled_peer_is_dropped(self) -> None:
        stalled = {
            "answer": (begin, GET),
            "idle": (None, GET),
        }
        for answer, data in stalled.values():
            peer = self.connect(answer, write_timeout=8, idle_connection_timeout=4)
            left: list[bool] = []
            peer.send(data)
            self.message.connection.set_close_callback(lambda: left.append(True))  # noqa: B023
            peer.stall()
            for _ in range(7):
                stepping(self.clock, 1)
                peer.protocol.pauseProducing()  # as for each further write
            self.assertFalse(peer.transport.closed)
            stepping(self.clock, 3)
            self.assertTrue(peer.transport.aborted)
            self.assertEqual(left, [True] if answer is begin else [])
            self.assert_at_rest()

    def test_stalled_peer_of_an_echo_is_dropped(self) -> None:
        peer = self.connect(write_timeout=8, body_grace=4)
        waiting = later()

        def on_data(message: Any) -> Any:
            begin(message)
            peer.stall()
            return message.connection.write(message.pieces[-1])

        self.recorder.on_data = on_data
        peer.send(CHUNKED_POST + b"3\r\nabc\r\n")
        stepping(self.clock, 10)
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(self.message.events, ["close"])
        waiting.callback(None)

    def test_slow_peer_is_not_stalled(self) -> None:
        peer = self.connect(begin, write_timeout=8)
        peer.send(GET)
        peer.stall(100)
        for left in range(95, 0, -5):
            stepping(self.clock, 7)
            peer.transport.dataBuffer = bytes(left)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 20)
        self.assertTrue(peer.transport.aborted)

    def test_reading_on_ends_the_time(self) -> None:
        peer = self.connect(begin, write_timeout=8)
        peer.send(GET)
        peer.stall()
        stepping(self.clock, 6)
        peer.read_on()
        stepping(self.clock, 60)
        self.assertFalse(peer.transport.closed)

    def test_slow_reader_of_an_early_answer(self) -> None:
        peer = self.connect(drain_timeout=4, write_timeout=8)

        def on_headers(message: Any) -> None:
            message.reply(b"early")
            peer.stall()

        self.recorder.on_headers = on_headers
        peer.send(HEAD_OF_POST % 10)
        stepping(self.clock, 6)
        self.assertFalse(peer.transport.closed)
        peer.read_on()
        stepping(self.clock, 3)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 3)
        self.assertTrue(peer.transport.aborted)

    def test_slow_body_behind_a_full_buffer(self) -> None:
        peer = self.connect(body_timeout=20, write_timeout=8)
        peer.send(HEAD_OF_POST % 10)
        peer.stall(100)
        stepping(self.clock, 6)
        peer.transport.dataBuffer = b"x"
        stepping(self.clock, 6)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 6)
        self.assertTrue(peer.transport.aborted)

    def test_last_answer_to_a_slow_peer(self) -> None:
        peer = self.connect(drain_timeout=4, write_timeout=8)
        peer.transport.dataBuffer = bytes(100)
        peer.send(b"nonsense\r\n\r\n")
        for left in (80, 60, 40):
            stepping(self.clock, 6)
            peer.transport.dataBuffer = bytes(left)
        self.assertFalse(peer.transport.closed)
        peer.transport.dataBuffer = b""
        peer.protocol.writeConnectionLost()
        stepping(self.clock, 3)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 3)
        self.assertTrue(peer.transport.closed)
        self.assertFalse(peer.transport.aborted)

    def test_last_answer_to_a_stalled_peer(self) -> None:
        peer = self.connect(drain_timeout=4, write_timeout=8)
        peer.transport.dataBuffer = bytes(100)
        peer.send(b"nonsense\r\n\r\n")
        stepping(self.clock, 14)
        self.assertTrue(peer.transport.aborted)
        self.assert_at_rest()
