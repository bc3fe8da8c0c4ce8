"""Responses on the wire: how they are delimited, and applications held to what they announced."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.response import WriteDeferred, error_response
from cycloneish.httputil import HTTPHeaders, HTTPOutputError, RequestStartLine, ResponseStartLine
from cycloneish.iostream import StreamClosedError
from tests.http.support import GET, Peer, Recorder, body_of, make_server

HEAD = GET.replace(b"GET", b"HEAD")


class ExchangeTestCase(SynchronousTestCase):
    def ask(self, answer: Any, request: bytes = GET) -> bytes:
        """What the client gets of *answer*, a function of the exchange."""
        self.errors: list[BaseException] = []

        def call(message: Any) -> None:
            try:
                answer(message.connection)
            except Exception as error:
                self.errors.append(error)

        self.recorder = Recorder(call)
        self.peer = Peer(make_server(self.recorder)[0])
        return self.peer.send(request)


def head(connection: Any, code: int = 200, chunk: bytes | None = None, **headers: str) -> Any:
    fields = HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()})
    return connection.write_headers(ResponseStartLine("", code, "Fine"), fields, chunk)


class Framing(ExchangeTestCase):
    def test_unknown_length_is_chunked(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, chunk=b"ab")
            connection.write(b"")
            connection.write(b"c" * 17)
            connection.finish()

        self.assertEqual(
            self.ask(answer),
            b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nab\r\n11\r\nccccccccccccccccc\r\n0\r\n\r\n",
        )
        self.assertFalse(self.peer.transport.closed)

    def test_known_length(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, chunk=b"ab", Content_Length="3")
            connection.write(b"c")
            connection.finish()

        self.assertEqual(self.ask(answer), b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nabc")

    def test_answers_without_a_body(self) -> None:
        for code, request in ((204, GET), (304, GET), (200, HEAD)):

            def answer(connection: Any, code: int = code) -> None:
                head(connection, code, chunk=b"dropped")
                connection.write(b"dropped")
                connection.finish()

            sent = self.ask(answer, request)
            self.assertEqual(sent, b"HTTP/1.1 %d Fine\r\n\r\n" % code)
            self.assertFalse(self.peer.transport.closed)

    def test_length_without_a_body(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, Content_Length="1000")
            connection.finish()

        self.assertEqual(self.ask(answer, HEAD), b"HTTP/1.1 200 Fine\r\nContent-Length: 1000\r\n\r\n")
        self.assertFalse(self.peer.transport.closed)

    def test_application_that_frames_itself(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, chunk=b"2\r\nab\r\n0\r\n\r\n", Transfer_Encoding="chunked")
            connection.finish()

        self.assertEqual(body_of(self.ask(answer)), b"2\r\nab\r\n0\r\n\r\n")

    def test_hints_come_before_the_answer(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, 103, Link="</a.css>")
            head(connection, 200, b"x", Content_Length="1")
            connection.finish()

        self.assertEqual(
            self.ask(answer),
            b"HTTP/1.1 103 Fine\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 1\r\n\r\nx",
        )

    def test_repeated_headers(self) -> None:
        def answer(connection: Any) -> None:
            fields = HTTPHeaders({"Content-Length": "0"})
            fields.add("Set-Cookie", "a=b")
            fields.add("Set-Cookie", "c=d")
            connection.write_headers(ResponseStartLine("", 200, "Fine"), fields)
            connection.finish()

        self.assertIn(b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n", self.ask(answer))

    def test_raw_answer_ends_the_connection(self) -> None:
        def answer(connection: Any) -> None:
            connection.write(b"HTTP/1.1 200 By hand\r\n\r\nbody")
            connection.finish()

        self.assertEqual(self.ask(answer, GET * 2), b"HTTP/1.1 200 By hand\r\n\r\nbody")
        self.assertTrue(self.peer.transport.write_closed)

    def test_no_answer_at_all(self) -> None:
        self.assertEqual(self.ask(lambda connection: connection.finish()), b"")
        self.assertTrue(self.peer.transport.closed)


class Held(ExchangeTestCase):
    def fails(self, answer: Any, text: str) -> bytes:
        sent = self.ask(answer)
        self.assertEqual(len(self.errors), 1)
        self.assertIsInstance(self.errors[0], HTTPOutputError)
        self.assertIn(text, str(self.errors[0]))
        return sent

    def test_too_much(self) -> None:
        def at_once(connection: Any) -> None:
            head(connection, chunk=b"abc", Content_Length="2")

        def in_pieces(connection: Any) -> None:
            head(connection, chunk=b"a", Content_Length="2")
            connection.write(b"bc")

        self.assertEqual(self.fails(at_once, "more data than Content-Length"), b"")
        self.assertTrue(self.peer.transport.closed)
        self.assertEqual(body_of(self.fails(in_pieces, "more data than Content-Length")), b"a")
        self.assertTrue(self.peer.transport.closed)

    def test_too_little(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, chunk=b"a", Content_Length="3")
            connection.finish()

        self.fails(answer, "2 bytes less than Content-Length")
        self.assertTrue(self.peer.transport.closed)

    def test_two_heads(self) -> None:
        def answer(connection: Any) -> None:
            head(connection)
            head(connection)

        self.fails(answer, "already")

    def test_odd_lengths(self) -> None:
        for length in ("", "-1", "+1", "1,1", "\u0661"):
            self.fails(lambda connection: head(connection, Content_Length=length), "Content-Length")  # noqa: B023

    def test_headers_that_would_break_out(self) -> None:
        for value in ("a\r\nX: b", "a\nb", "a\0b", "a\rb"):
            fields = HTTPHeaders._from_dict({"X": value})

            def answer(connection: Any, fields: HTTPHeaders = fields) -> None:
                connection.write_headers(ResponseStartLine("", 200, "Fine"), fields)

            self.assertEqual(self.fails(answer, "Illegal character"), b"")

        def reason(connection: Any) -> None:
            connection.write_headers(ResponseStartLine("", 200, "Fi\r\nne"), HTTPHeaders())

        self.fails(reason, "Illegal character")

    def test_headers_outside_latin_1(self) -> None:
        fields = HTTPHeaders._from_dict({"X": "\u20ac"})
        answer = lambda connection: connection.write_headers(ResponseStartLine("", 200, "F"), fields)  # noqa: E731
        self.fails(answer, "not latin-1")

    def test_another_answer_after_a_refused_head_is_framed_afresh(self) -> None:
        def answer(connection: Any) -> None:
            self.assertRaises(
                HTTPOutputError,
                connection.write_headers,
                ResponseStartLine("", 200, "Fine"),
                HTTPHeaders._from_dict({"X": "a\nb"}),
            )
            head(connection, 500, b"sorry", Content_Length="5")
            connection.finish()

        self.assertEqual(self.ask(answer), b"HTTP/1.1 500 Fine\r\nContent-Length: 5\r\n\r\nsorry")

    def test_request_line_is_no_status_line(self) -> None:
        def answer(connection: Any) -> None:
            connection.write_headers(RequestStartLine("GET", "/", "HTTP/1.1"), HTTPHeaders())

        self.ask(answer)
        self.assertIsInstance(self.errors[0], TypeError)


class AfterTheEnd(ExchangeTestCase):
    def test_writes_are_dropped(self) -> None:
        def answer(connection: Any) -> None:
            head(connection, Content_Length="0")
            connection.finish()
            connection.write(b"late")
            head(connection, 500)
            connection.finish()

        self.assertEqual(self.ask(answer), b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.errors, [])


class BackPressure(ExchangeTestCase):
    def test_writes_wait_for_the_transport(self) -> None:
        self.ask(head)
        connection = self.recorder.messages[0].connection
        self.successResultOf(connection.write(b"fast"))
        self.peer.stall()
        slow = connection.write(b"slow")
        self.assertNoResult(slow)
        self.peer.read_on()
        self.successResultOf(slow)

    def test_waiting_at_the_end_of_a_response_that_closes(self) -> None:
        written: list[Any] = []

        def answer(connection: Any) -> None:
            connection.stream.pauseProducing()
            written.append(head(connection, chunk=b"x", Content_Length="1", Connection="close"))
            connection.finish()

        self.ask(answer)
        self.successResultOf(written[0])

    def test_cancelled_wait(self) -> None:
        self.ask(head)
        connection = self.recorder.messages[0].connection
        self.peer.stall()
        waiting = connection.write(b"slow")
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.peer.read_on()
        self.peer.leave()


class WriteDeferreds(SynchronousTestCase):
    """That nobody waits leaves no unhandled error, which trial would report."""

    def test_nobody_waits(self) -> None:
        WriteDeferred().lose()
        deferred = WriteDeferred()
        deferred.addCallback(lambda _: None)
        deferred.lose()
        deferred.lose()

    def test_whoever_waits_is_told(self) -> None:
        before, after, inside = WriteDeferred(), WriteDeferred(), WriteDeferred()
        outer: Deferred[Any] = Deferred()
        outer.addCallback(lambda _: inside)
        outer.callback(None)
        seen: list[Any] = []
        before.addErrback(seen.append)
        for deferred in (before, after, inside):
            deferred.lose()
        after.addErrback(seen.append)
        outer.addErrback(seen.append)
        self.assertEqual([failure.type for failure in seen], [StreamClosedError] * 3)

    def test_coroutine_is_told(self) -> None:
        async def wait(deferred: WriteDeferred) -> str:
            try:
                await deferred
            except StreamClosedError:
                return "told"
            return "written"

        deferred = WriteDeferred()
        waiting = Deferred.fromCoroutine(wait(deferred))
        deferred.lose()
        self.assertEqual(self.successResultOf(waiting), "told")
        deferred = WriteDeferred()
        deferred.lose()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait(deferred))), "told")
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait(WriteDeferred.fired()))), "written")

    def test_error_in_a_callback_is_reported(self) -> None:
        deferred = WriteDeferred()
        deferred.addErrback(lambda _: 1 / 0)
        deferred.lose()
        self.failureResultOf(deferred, ZeroDivisionError)

    def test_error_responses(self) -> None:
        self.assertEqual(error_response(400), b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertIn(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n", error_response(413))
        self.assertIn(b"HTTP/1.1 499 Error\r\n", error_response(499))
