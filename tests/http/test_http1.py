"""The engine without sockets: requests in order, refusals, crashes, and callbacks that close or abort."""

from __future__ import annotations

from typing import Any

from cycloneish.http import connection
from cycloneish.httputil import HTTPInputError
from cycloneish.iostream import StreamClosedError
from tests.http.support import (
    CHUNKED_POST,
    GET,
    HEAD_OF_POST,
    EngineTestCase,
    begin,
    body_of,
    get,
    later,
    post,
    status_of,
    stepping,
)


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


class Refusals(EngineTestCase):
    def refused(self, data: bytes, status: int, **options: Any) -> None:
        peer = self.connect(**options)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            self.assertEqual(status_of(peer.send(data)), status)
        self.assertEqual(len(logs.records), 1)
        kind = "Unsatisfiable read" if status in (414, 431) else "Malformed HTTP message"
        self.assertIn(f"{kind} from", logs.output[0])
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

    def test_statuses_of_tornado(self) -> None:
        for limits, request, status in [
            ({"max_body_size": 3}, post(b"four"), 400),
            ({"max_body_size": 3}, CHUNKED_POST + b"4\r\nfour\r\n", 400),
            ({}, b"GET / HTTP/3.0\r\n\r\n", 400),
            ({}, b"nonsense\r\n\r\n", 400),
            ({"max_header_size": 50}, get("/", "X: " + "x" * 100), None),
            ({"max_request_line": 50}, get("/" + "x" * 100), None),
        ]:
            with self.subTest(request=request), self.assertLogs("cycloneish.general", "INFO"):
                peer = self.connect(tornado_statuses=True, **limits)
                answer = peer.send(request)
                self.assertEqual(status_of(answer) if answer else None, status)
                self.assertTrue(peer.transport.write_closed)

    def test_late_bodies_and_tornados_silence(self) -> None:
        peer = self.connect(tornado_statuses=True, body_timeout=3.0)
        peer.send(HEAD_OF_POST % 5 + b"12")
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            stepping(self.clock, 5)
        self.assertIn("Timeout reading body", logs.output[0])
        self.assertEqual(peer.received(), b"")
        self.assertTrue(peer.transport.write_closed)

    def test_log_has_no_line_breaks(self) -> None:
        peer = self.connect()
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            peer.send(b"GET / HTTP/1.1\r\nHost: a\x1b[0m\r\n\r\n")
        self.assertNotIn("\x1b", logs.output[0])

    def test_transport_that_cannot_half_close(self) -> None:
        peer = self.connect()

        self.patch(connection, "can_half_close", lambda transport: False)
        self.assertEqual(status_of(peer.send(b"nonsense\r\n\r\n")), 400)
        self.assertTrue(peer.transport.closed)


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
