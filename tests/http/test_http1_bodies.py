"""The engine without sockets: bodies with back-pressure and limits, and what is expected of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.http.support import (
    CHUNKED_POST,
    GET,
    HEAD_OF_POST,
    EngineTestCase,
    body_of,
    later,
    post,
    status_of,
    stepping,
)


class Bodies(EngineTestCase):
    def test_body_with_a_length(self) -> None:
        peer = self.connect()
        self.assertEqual(body_of(peer.send(post(b"hello"))), b"hello")
        self.assertEqual(peer.send(HEAD_OF_POST % 4), b"")
        self.assertEqual(peer.send(b"ab"), b"")
        self.assertEqual(body_of(peer.send(b"cd")), b"abcd")

    def test_body_in_chunks(self) -> None:
        peer = self.connect()
        answer = peer.send(CHUNKED_POST + b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX-T: 1\r\n\r\n" + GET)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 2)
        self.assertIn(b"\r\n\r\nabcd", answer)
        first = self.recorder.messages[0]
        self.assertEqual(first.connection.trailers["X-T"], "1")
        self.assertNotIn("X-T", first.headers)

    def test_pieces_have_the_chunk_size(self) -> None:
        peer = self.connect(chunk_size=10)
        peer.send(post(b"x" * 25))
        self.assertEqual([len(piece) for piece in self.message.pieces], [10, 10, 5])
        peer.send(CHUNKED_POST + b"19\r\n" + b"x" * 25 + b"\r\n0\r\n\r\n")
        self.assertEqual([len(piece) for piece in self.message.pieces], [10, 10, 5])

    def test_reading_stops_until_a_piece_is_dealt_with(self) -> None:
        peer = self.connect(chunk_size=4)
        waiting: list[Deferred[None]] = []

        def on_data(message: Any) -> Deferred[None]:
            waiting.append(later())
            return waiting[-1]

        self.recorder.on_data = on_data
        peer.send(HEAD_OF_POST % 12 + b"abcdefgh")
        self.assertEqual(self.message.pieces, [b"abcd"])
        self.assertFalse(peer.is_read)
        peer.send(b"ijkl")
        self.assertEqual(self.message.pieces, [b"abcd"], "bytes that come though reading is paused wait")
        waiting[0].callback(None)
        self.assertEqual(self.message.pieces, [b"abcd", b"efgh"])
        waiting[1].callback(None)
        self.assertEqual(peer.received(), b"")
        waiting[2].callback(None)
        self.assertEqual(body_of(peer.received()), b"abcdefghijkl")
        self.assertTrue(peer.is_read)

    def test_body_waits_for_the_head_to_be_dealt_with(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        peer.send(post(b"hello"))
        self.assertFalse(peer.is_read)
        self.assertEqual(self.message.pieces, [])
        waiting.callback(None)
        self.assertEqual(body_of(peer.received()), b"hello")

    def test_coroutine_holds_the_body(self) -> None:
        peer = self.connect()
        waiting = later()

        async def on_headers() -> None:
            await waiting

        self.recorder.on_headers = lambda message: on_headers()
        peer.send(GET)
        self.assertEqual(self.message.events, [])
        waiting.callback(None)
        self.assertEqual(self.message.events, ["finish"])

    def test_leaving_is_noticed_while_the_head_is_dealt_with(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        peer.send(GET)
        self.assertTrue(peer.is_read)
        peer.leave()
        self.assertEqual(self.message.events, ["close"])
        waiting.callback(None)
        self.assertEqual(self.message.events, ["close"])

    def test_answer_while_the_head_is_held_does_not_stop_the_connection(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        peer.send(GET)
        self.message.reply(b"early")
        self.assertEqual(body_of(peer.received()), b"early")
        self.recorder.on_headers = lambda message: None
        self.assertTrue(peer.is_read)
        self.assertEqual(status_of(peer.send(GET)), 200)
        waiting.callback(None)
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.recorder.messages[0].events, [])

    def test_answer_while_the_last_piece_is_held(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(post(b"hello"))
        peer.send(GET)
        self.assertFalse(peer.is_read)
        self.message.reply(b"early")
        self.turn()
        self.assertEqual(peer.received().count(b"200"), 2)
        self.assertTrue(peer.is_read)

    def test_body_above_the_limit(self) -> None:
        for data in (
            HEAD_OF_POST % 11,
            CHUNKED_POST + b"b\r\n",
            CHUNKED_POST + b"6\r\nabcdef\r\n5\r\nabcde\r\n",
        ):
            peer = self.connect(max_body_size=10)
            with self.assertLogs("cycloneish.general", "INFO") as logs:
                self.assertEqual(status_of(peer.send(data)), 413)
            self.assertEqual(len(logs.records), 1)
            self.assertTrue(peer.transport.write_closed)
            self.assertEqual(self.message.events, ["close"])

    def test_limit_of_one_request(self) -> None:
        peer = self.connect(max_body_size=10)
        self.recorder.on_headers = lambda message: message.connection.set_max_body_size(20)
        self.assertEqual(status_of(peer.send(post(b"x" * 20))), 200)
        self.recorder.on_headers = lambda message: message.connection.set_max_body_size(5)
        self.assertEqual(status_of(peer.send(post(b"x" * 6))), 413)

    def test_no_body_at_all(self) -> None:
        peer = self.connect(max_body_size=0)
        self.assertEqual(status_of(peer.send(post(b""))), 200)
        self.assertEqual(status_of(peer.send(post(b"x"))), 413)

    def test_malformed_chunk(self) -> None:
        peer = self.connect()
        with self.assertLogs("cycloneish.general", "INFO"):
            answer = peer.send(CHUNKED_POST + b"2\r\nab\r\n" + b"x\r\n")
        self.assertEqual(status_of(answer), 400)
        self.assertEqual(self.message.events, ["close"])


class Expect(EngineTestCase):
    ASKS = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

    def test_continue(self) -> None:
        peer = self.connect()
        self.assertEqual(peer.send(self.ASKS), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(body_of(peer.send(b"hello")), b"hello")

    def test_no_continue_when_the_body_has_come(self) -> None:
        peer = self.connect()
        self.assertEqual(status_of(peer.send(self.ASKS + b"hello")), 200)

    def test_no_continue_for_http_1_0(self) -> None:
        peer = self.connect()
        self.assertEqual(peer.send(self.ASKS.replace(b"1.1", b"1.0")), b"")
        self.assertEqual(status_of(peer.send(b"hello")), 200)

    def test_refused_before_the_body(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = lambda message: message.reply(b"no", 403)
        answer = peer.send(self.ASKS)
        self.assertEqual(status_of(answer), 403)
        self.assertIn(b"Connection: close", answer)
        self.assertTrue(peer.transport.write_closed)
        peer.send(b"hello")
        self.assertEqual(self.message.pieces, [])

    def test_too_large_is_refused_before_the_body(self) -> None:
        peer = self.connect(max_body_size=4)
        self.assertEqual(status_of(peer.send(self.ASKS)), 413)

    def test_another_expectation(self) -> None:
        peer = self.connect()
        with self.assertLogs("cycloneish.general", "INFO"):
            self.assertEqual(status_of(peer.send(self.ASKS.replace(b"100-continue", b"miracles"))), 417)

    def test_continue_waits_for_the_head_to_be_dealt_with(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        self.assertEqual(peer.send(self.ASKS), b"")
        waiting.callback(None)
        self.assertEqual(status_of(peer.received()), 100)


class EarlyAnswers(EngineTestCase):
    def early(self, message: Any) -> None:
        message.reply(b"early")

    def test_rest_of_a_short_body_is_thrown_away(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = self.early
        self.assertEqual(body_of(peer.send(HEAD_OF_POST % 10 + b"abc")), b"early")
        self.turn()
        self.recorder.on_headers = lambda message: None
        self.assertTrue(peer.is_read)
        self.assertEqual(peer.send(b"defghij"), b"")
        self.assertEqual(body_of(peer.send(post(b"next"))), b"next")
        self.assertEqual(self.recorder.messages[0].pieces, [])

    def test_rest_is_thrown_away_whatever_the_chunk_size(self) -> None:
        peer = self.connect(chunk_size=2)
        self.recorder.on_headers = self.early
        answers = peer.send(HEAD_OF_POST % 10 + b"abcdefghij" + GET)
        self.assertEqual(answers.count(b"HTTP/1.1 200"), 2)
        peer.send(HEAD_OF_POST % 10)
        self.turn()
        self.assertEqual(peer.send(b"abcdefghij" + GET).count(b"HTTP/1.1 200"), 1)
        self.assertTrue(peer.is_read)

    def test_answer_in_the_middle_of_a_body(self) -> None:
        peer = self.connect()
        self.recorder.on_data = self.early
        self.assertEqual(body_of(peer.send(HEAD_OF_POST % 10 + b"abc")), b"early")
        self.turn()
        self.assertEqual(peer.send(b"defg"), b"")
        self.recorder.on_data = lambda message: None
        self.assertEqual(body_of(peer.send(b"hij" + post(b"next"))), b"next")
        self.assertEqual(self.recorder.messages[0].pieces, [b"abc"])

    def test_answer_with_the_last_piece(self) -> None:
        peer = self.connect()
        self.recorder.on_data = self.early
        self.assertEqual(peer.send(post(b"abc") * 2).count(b"early"), 2)
        self.assertEqual(self.message.events, [])

    def test_long_or_chunked_rest_closes(self) -> None:
        for data in (HEAD_OF_POST % 1001 + b"abc", CHUNKED_POST + b"3\r\nabc\r\n"):
            peer = self.connect(drain_size=1000)
            self.recorder.on_headers = self.early
            answer = peer.send(data)
            self.assertIn(b"Connection: close", answer)
            self.assertTrue(peer.transport.write_closed)
            self.assertFalse(peer.transport.closed)
            peer.send(b"x" * 1000)
            self.assertFalse(peer.transport.closed)
            peer.send(b"x")
            self.assertTrue(peer.transport.closed)
            self.assertEqual(len(self.recorder.messages), 1)

    def test_connection_header_of_the_application_does_not_keep_what_cannot_be_kept(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = lambda message: message.reply(b"early", Connection="keep-alive")
        peer.send(CHUNKED_POST + b"3\r\nabc\r\n0\r\n\r\n" + GET)
        self.turns(peer)
        self.assertTrue(peer.transport.write_closed)
        self.assertEqual(len(self.recorder.messages), 1)

    def test_drain_has_an_end(self) -> None:
        peer = self.connect(drain_timeout=5)
        self.recorder.on_headers = self.early
        peer.send(HEAD_OF_POST % 10 + b"abc")
        stepping(self.clock, 4)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 3)
        self.assertTrue(peer.transport.closed)
        self.assert_at_rest()

    def test_lingering_has_an_end(self) -> None:
        peer = self.connect(drain_timeout=5)
        peer.send(b"nonsense\r\n\r\n")
        stepping(self.clock, 4)
        self.assertFalse(peer.transport.closed)
        stepping(self.clock, 3)
        self.assertTrue(peer.transport.closed)
        self.assertFalse(peer.transport.aborted, "a reset could overtake what the kernel still holds")
        self.assert_at_rest()

    def test_late_failure_of_a_piece_is_logged_and_no_more(self) -> None:
        peer = self.connect()
        waiting = later()

        def on_data(message: Any) -> Deferred[None]:
            self.early(message)
            return waiting

        self.recorder.on_data = on_data
        peer.send(post(b"abc"))
        with self.assertLogs("cycloneish.application", "ERROR"):
            waiting.errback(ZeroDivisionError())
        self.assertEqual(status_of(peer.send(GET)), 200)
