"""The engine without sockets: requests in order, bodies with back-pressure, and every way to end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cycloneish.http import http1
from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine
from cycloneish.iostream import StreamClosedError
from tests.http.support import GET, Peer, Recorder, body_of, later, make_server, status_of, stepping

HEAD_OF_POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


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


class KeepAlive(EngineTestCase):
    def test_connection_is_kept(self) -> None:
        peer = self.connect()
        for _ in range(3):
            answer = peer.send(GET)
            self.assertEqual(answer, b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n")
        self.assertFalse(peer.transport.closed)

    def test_close_is_asked_for(self) -> None:
        peer = self.connect()
        answer = peer.send(get("/", "Connection: close"))
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertTrue(peer.transport.closed)
        self.assert_at_rest()

    def test_http_1_0(self) -> None:
        peer = self.connect()
        answer = peer.send(get("/", version="1.0"))
        self.assertNotIn(b"Connection", answer)
        self.assertTrue(peer.transport.closed)
        peer = self.connect()
        answer = peer.send(get("/", "Connection: keep-alive", version="1.0"))
        self.assertIn(b"\r\nConnection: Keep-Alive\r\n", answer)
        self.assertFalse(peer.transport.closed)

    def test_http_1_0_without_a_length_ends_with_the_connection(self) -> None:
        peer = self.connect(lambda message: message.reply(b"body", length=False))
        answer = peer.send(get("/", "Connection: keep-alive", version="1.0"))
        self.assertEqual(body_of(answer), b"body")
        self.assertNotIn(b"Transfer-Encoding", answer)
        self.assertTrue(peer.transport.closed)

    def test_no_keep_alive(self) -> None:
        peer = self.connect(no_keep_alive=True)
        self.assertIn(b"Connection: close", peer.send(GET))
        self.assertTrue(peer.transport.closed)

    def test_application_closes(self) -> None:
        peer = self.connect(lambda message: message.reply(b"x", Connection="close"))
        self.assertEqual(peer.send(GET).count(b"Connection:"), 1)
        self.assertTrue(peer.transport.closed)

    def test_empty_lines_in_front_are_ignored(self) -> None:
        peer = self.connect()
        self.assertEqual(status_of(peer.send(b"\r\n\r\n" + GET)), 200)
        self.assertEqual(peer.send(b"\r"), b"")
        self.assertEqual(status_of(peer.send(b"\n" + GET)), 200)

    def test_head_in_single_bytes(self) -> None:
        peer = self.connect()
        answers = [peer.send(GET[i : i + 1]) for i in range(len(GET))]
        self.assertEqual([bool(answer) for answer in answers], [False] * (len(GET) - 1) + [True])

    def test_connection_closed_by_the_peer(self) -> None:
        peer = self.connect()
        peer.send(GET)
        peer.leave()
        self.assertEqual(self.recorder.closed, 1)
        self.assertEqual(self.message.events, ["finish"])
        self.assert_at_rest()


class Pipelining(EngineTestCase):
    def echo(self, message: Any) -> None:
        message.reply(message.start_line.path.encode())

    def test_answers_in_order(self) -> None:
        peer = self.connect(self.echo)
        answer = peer.send(b"".join(get(f"/{i}") for i in range(5)))
        self.assertEqual(
            [part[-2:] for part in answer.split(b"HTTP/1.1 200")[1:]], [b"/%d" % i for i in range(5)]
        )

    def test_next_request_waits_for_a_late_answer(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(get("/1") + get("/2"))
        self.assertEqual(len(self.recorder.messages), 1)
        self.assertFalse(peer.is_read)
        self.echo(self.message)
        self.assertEqual(len(self.recorder.messages), 1, "not while the first handler is on the stack")
        self.turn()
        self.assertEqual(len(self.recorder.messages), 2)
        self.assertTrue(peer.is_read)
        self.echo(self.message)
        answer = peer.received()
        self.assertLess(answer.index(b"/1"), answer.index(b"/2"))

    def test_other_connections_get_their_turn(self) -> None:
        peer = self.connect(self.echo, pipeline_burst=4)
        answer = peer.send(GET * 10)
        self.assertEqual(answer.count(b"200"), 4)
        self.assertFalse(peer.is_read)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2, "the next turn, and the time-outs")
        self.turn()
        self.assertEqual(peer.received().count(b"200"), 6)
        self.assertTrue(peer.is_read)
        self.assertEqual(status_of(peer.send(GET)), 200)

    def test_what_follows_a_close_is_not_answered(self) -> None:
        peer = self.connect(self.echo)
        answer = peer.send(get("/1", "Connection: close") + get("/2"))
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertTrue(peer.transport.write_closed)
        peer.send(GET)
        self.turns(peer)
        self.assertEqual(len(self.recorder.messages), 1)
        peer.protocol.readConnectionLost()
        self.assertTrue(peer.transport.closed)

    def test_peer_that_does_not_read_gets_no_more_answers(self) -> None:
        peer = self.connect(self.echo)

        def answer(message: Any) -> None:
            self.echo(message)
            peer.stall()

        self.recorder.answer = answer
        peer.send(GET * 10)
        self.turns(peer)
        self.assertEqual(len(self.recorder.messages), 1)
        self.assertFalse(peer.is_read)
        self.recorder.answer = self.echo
        peer.read_on()
        self.turns(peer)
        self.assertEqual(len(self.recorder.messages), 10)
        self.assertTrue(peer.is_read)

    def test_bad_request_behind_a_good_one(self) -> None:
        peer = self.connect(self.echo)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            answer = peer.send(GET + b"nonsense\r\n\r\n")
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 1)
        self.assertTrue(answer.endswith(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        self.assertEqual(len(logs.records), 1)


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


class Refusals(EngineTestCase):
    def refused(self, data: bytes, status: int, **options: Any) -> None:
        peer = self.connect(**options)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            self.assertEqual(status_of(peer.send(data)), status)
        self.assertEqual(len(logs.records), 1)
        self.assertIn("Malformed HTTP message from", logs.output[0])
        self.assertEqual(self.recorder.messages, [])
        self.assertTrue(peer.transport.write_closed)
        self.assertEqual(peer.send(GET), b"")
        peer.protocol.readConnectionLost()
        self.assertTrue(peer.transport.closed)
        self.assert_at_rest()

    def test_statuses(self) -> None:
        self.refused(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)
        self.refused(b"\x16\x03\x01", 400)
        self.refused(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505)
        self.refused(get("/" + "x" * 200), 414, max_request_line=100)
        self.refused(b"GET /" + b"x" * 200, 414, max_request_line=100)
        self.refused(get("/", "X: " + "y" * 200), 431, max_header_size=100)
        self.refused(get("/", "X: " + "y" * 200)[:-2], 431, max_header_size=100)
        self.refused(get("/", *["X: y"] * 10), 431, max_header_fields=5)

    def test_log_has_no_line_breaks(self) -> None:
        peer = self.connect()
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            peer.send(b"GET / HTTP/1.1\r\nHost: a\x1b[0m\r\n\r\n")
        self.assertNotIn("\x1b", logs.output[0])

    def test_transport_that_cannot_half_close(self) -> None:
        peer = self.connect()

        self.patch(http1, "can_half_close", lambda transport: False)
        self.assertEqual(status_of(peer.send(b"nonsense\r\n\r\n")), 400)
        self.assertTrue(peer.transport.closed)


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


class Crashes(EngineTestCase):
    def fails(self, message: Any) -> Any:
        raise ZeroDivisionError("in the application")

    def test_at_each_stage(self) -> None:
        def breaks_start(server_conn: object, request_conn: object) -> Any:
            raise ZeroDivisionError

        for stage in ("start", "head", "data", "finish"):
            peer = self.connect()
            if stage == "start":
                peer.protocol._owner.start_request = breaks_start
            elif stage == "finish":
                self.recorder.answer = self.fails
            else:
                setattr(self.recorder, {"head": "on_headers", "data": "on_data"}[stage], self.fails)
            with self.assertLogs("cycloneish.application", "ERROR") as logs:
                self.assertEqual(peer.send(post(b"abc")), b"")
            self.assertEqual(len(logs.records), 1, stage)
            self.assertTrue(peer.transport.closed, stage)
            if stage in ("head", "data"):
                self.assertEqual(self.message.events, ["close"])
            self.assert_at_rest()

    def test_in_a_deferred(self) -> None:
        peer = self.connect()
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(post(b"abc"))
        with self.assertLogs("cycloneish.application", "ERROR"):
            waiting.errback(ZeroDivisionError())
        self.assertTrue(peer.transport.closed)
        self.assertEqual(self.message.events, ["close"])

    def test_refusal_of_the_application(self) -> None:
        def refuses(message: Any) -> Any:
            raise HTTPInputError("not like this", status=413)

        for stage in ("on_headers", "on_data", "answer"):
            peer = self.connect()
            setattr(self.recorder, stage, refuses)
            self.assertEqual(status_of(peer.send(post(b"abc"))), 413)
        peer = self.connect()
        waiting = later()
        self.recorder.on_headers = lambda message: waiting
        peer.send(post(b"abc"))
        waiting.errback(HTTPInputError("not like this", status=414))
        self.assertEqual(status_of(peer.received()), 414)

    def test_behind_a_complete_answer_nothing_is_sent(self) -> None:
        for error in (ZeroDivisionError(), HTTPInputError("too late")):

            def answer(message: Any, error: Exception = error) -> None:
                message.reply(b"complete")
                raise error

            peer = self.connect(answer)
            with self.assertLogs("cycloneish.application", "ERROR"):
                answers = peer.send(GET)
            self.assertEqual(answers.count(b"HTTP/1.1"), 1)
            self.assertTrue(peer.transport.closed)

    def test_behind_an_early_answer_the_peer_may_read_it(self) -> None:
        def on_headers(message: Any) -> None:
            message.reply(b"complete")
            raise ZeroDivisionError

        peer = self.connect(drain_size=1)
        self.recorder.on_headers = on_headers
        with self.assertLogs("cycloneish.application", "ERROR"):
            self.assertEqual(body_of(peer.send(HEAD_OF_POST % 10)), b"complete")
        self.assertTrue(peer.transport.write_closed)
        self.assertFalse(peer.transport.closed)

    def test_refusal_in_the_middle_of_an_answer_only_ends_it(self) -> None:
        peer = self.connect()
        self.recorder.on_headers = begin
        answer = peer.send(CHUNKED_POST + b"zz\r\n")
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertTrue(peer.transport.write_closed)
        self.assertEqual(self.message.events, ["close"])


class Reentrancy(EngineTestCase):
    def test_close_in_every_callback(self) -> None:
        for stage in ("on_headers", "on_data", "answer"):
            peer = self.connect()
            setattr(self.recorder, stage, lambda message: message.connection.stream.close())
            self.assertEqual(peer.send(post(b"abc") + GET), b"")
            self.assertTrue(peer.transport.closed)
            self.assertEqual(len(self.recorder.messages), 1)
            self.assertTrue(peer.protocol.closed())
            self.assertEqual(self.message.events.count("close"), int(stage != "answer"))
            self.assert_at_rest()

    def test_abort_in_every_callback(self) -> None:
        for stage in ("on_headers", "on_data", "answer"):
            peer = self.connect()
            setattr(self.recorder, stage, lambda message: message.connection.stream.abort())
            self.assertEqual(peer.send(post(b"abc") + GET), b"")
            self.assertTrue(peer.transport.aborted)
            self.assertEqual(len(self.recorder.messages), 1)
            self.assert_at_rest()

    def test_finish_after_close_begins_nothing_new(self) -> None:
        peer = self.connect(begin)
        peer.send(GET)
        connection = self.message.connection
        lost = peer.transport.protocol
        peer.transport.protocol = None  # the transport still sends: no connectionLost yet
        connection.stream.close()
        peer.transport.protocol = lost
        peer.received()
        connection.finish()
        self.assertEqual(peer.send(GET), b"")
        self.assertEqual(len(self.recorder.messages), 1)
        written = connection.write(b"x")
        self.assertNoResult(written)
        peer.leave()
        self.failureResultOf(written, StreamClosedError)

    def test_close_in_the_close_callback(self) -> None:
        peer = self.connect(lambda message: None)
        peer.send(GET)
        stream = self.message.connection.stream
        self.message.connection.set_close_callback(stream.close)
        peer.shut()
        self.assertTrue(peer.transport.closed)

    def test_late_finish_of_an_old_request_does_nothing(self) -> None:
        peer = self.connect()
        peer.send(GET)
        old = self.message.connection
        self.recorder.answer = lambda message: None
        peer.send(GET)
        old.finish()
        old.write(b"late")
        old._connection.response_done(old)
        self.assertEqual(peer.received(), b"")
        self.message.reply(b"right")
        self.assertEqual(body_of(peer.received()), b"right")


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
