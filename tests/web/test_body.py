"""Bodies: buffered, as large forms, or streamed to the handler."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.http.multipart import FormLimits
from cycloneish.httputil import HTTPInputError
from cycloneish.web import Application, HTTPError, RequestHandler, stream_request_body
from cycloneish.web.body import MULTIPART_BUFFER_SIZE, BufferedBody, FormBody
from tests.web.fake import Exchange, Logs, fetch

TYPE = "multipart/form-data; boundary=x"


def multipart(content: bytes, *, end: bytes = b"--x--\r\n") -> bytes:
    return (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="n.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n" + end
    )


class Upload(RequestHandler):
    def post(self) -> None:
        (file,) = self.request.files["f"]
        self.application.seen = file  # type: ignore[attr-defined]
        self.write(
            {
                "a": self.get_argument("a"),
                "q": self.get_arguments("q"),
                "name": file.filename,
                "size": len(file.file.read()),
                "body": len(self.request.body),
            }
        )


class BufferTests(SynchronousTestCase):
    def test_pieces_are_joined(self) -> None:
        class Handler(RequestHandler):
            def post(self) -> None:
                self.write(self.request.body)

        app = Application([("/", Handler)])
        exchange = Exchange(app, "POST", "/", {"Content-Length": "6"})
        self.assertIsNone(exchange.accepted)
        for piece in (b"ab", b"cd", b"ef"):
            self.assertIsNone(exchange.send(piece))
        self.assertEqual(exchange.end().body, b"abcdef")

    def test_small_forms_stay_in_memory(self) -> None:
        connection = fetch(Upload, "/?q=1", "POST", {"Content-Type": TYPE}, multipart(b"abc"))
        self.assertIn(b'"size": 3', connection.body)
        self.assertNotIn(b'"body": 0', connection.body)

    def test_limits_of_the_class_and_the_setting(self) -> None:
        class Large(RequestHandler):
            max_body_size = 500

            def post(self) -> None:
                pass

        for settings, handler, expected in (
            ({}, RequestHandler, None),
            ({"max_body_size": 10}, RequestHandler, 10),
            ({"max_body_size": 10}, Large, 500),
        ):
            app = Application([("/", handler)], **settings)
            exchange = Exchange(app, "POST", "/", {"Content-Length": "5"})
            self.assertEqual(exchange.connection.max_body_size, expected)
        self.assertIsNone(Exchange(Application([("/", Large)]), "GET", "/").connection.max_body_size)

    def test_lost_connection_lets_go(self) -> None:
        exchange = Exchange(Application([("/", Upload)]), "POST", "/", {"Content-Length": "5"})
        exchange.send(b"ab")
        exchange.delegate.on_connection_close()
        self.assertIsNone(exchange.delegate._body)  # type: ignore[attr-defined]

    def test_which_bodies_are_streamed(self) -> None:
        def kind(headers: dict[str, str], **settings: Any) -> type:
            exchange = Exchange(Application([("/", Upload)], **settings), "POST", "/", headers)
            body = exchange.delegate._body  # type: ignore[attr-defined]
            body.close()
            return type(body)

        form = {"Content-Type": TYPE}
        self.assertIs(kind({**form, "Content-Length": str(MULTIPART_BUFFER_SIZE)}), BufferedBody)
        self.assertIs(kind({**form, "Content-Length": str(MULTIPART_BUFFER_SIZE + 1)}), FormBody)
        self.assertIs(kind({**form, "Content-Length": "11"}, multipart_buffer_size=10), FormBody)
        self.assertIs(kind({**form, "Transfer-Encoding": "chunked"}), FormBody)
        self.assertIs(kind({"Content-Type": "text/plain", "Transfer-Encoding": "chunked"}), BufferedBody)
        compressed = {**form, "Content-Encoding": "x", "Transfer-Encoding": "chunked"}
        self.assertIs(kind(compressed), BufferedBody)


class LargeFormTests(TestCase):
    def upload(
        self, content: bytes, *, app: Application | None = None, end: bytes = b"--x--\r\n"
    ) -> Exchange:
        self.app = app or Application(
            [("/", Upload)], form_limits=FormLimits(max_file_memory=1000, directory=self.directory)
        )
        exchange = Exchange(self.app, "POST", "/?q=1", {"Content-Type": TYPE, "Transfer-Encoding": "chunked"})
        self.body = multipart(content, end=end)
        return exchange

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    @inlineCallbacks
    def send(self, exchange: Exchange) -> Iterator[Deferred[None]]:
        for start in range(0, len(self.body), 65536):
            waiting = exchange.send(self.body[start : start + 65536])
            if waiting is not None:
                yield waiting
        exchange.end()

    @inlineCallbacks
    def test_file_goes_to_disk_and_is_closed_after_the_response(self) -> Iterator[Deferred[None]]:
        exchange = self.upload(b"z" * 1_000_000)
        yield self.send(exchange)
        for _ in range(100):
            if exchange.connection.finished:
                break
            yield _turn()
        self.assertEqual(
            exchange.connection.body, b'{"a": "1", "q": ["1"], "name": "n.txt", "size": 1000000, "body": 0}'
        )
        self.assertTrue(self.app.seen.file.closed)  # type: ignore[attr-defined]
        self.assertEqual(os.listdir(self.directory), [])

    @inlineCallbacks
    def test_unfinished_form_is_400(self) -> Iterator[Deferred[None]]:
        exchange = self.upload(b"z", end=b"--")
        with Logs("cycloneish.general", "cycloneish.application") as logs:
            yield self.send(exchange)
        self.assertEqual(exchange.connection.code, 400)
        self.assertEqual(len(logs.records), 1)
        self.assertIsNone(logs.records[0].exc_info)

    def test_malformed_and_oversized_pieces_are_told_to_the_engine(self) -> None:
        exchange = self.upload(b"")
        error = self.assertRaises(HTTPInputError, exchange.send, b"no form at all\r\n" * 100)
        self.assertEqual(error.status, 400)
        exchange.delegate.on_connection_close()
        app = Application([("/", Upload)], form_limits=FormLimits(max_total_size=100))
        exchange = self.upload(b"z" * 1000, app=app)
        error = self.assertRaises(HTTPInputError, exchange.send, self.body)
        self.assertEqual(error.status, 413)
        exchange.delegate.on_connection_close()

    def test_form_without_boundary(self) -> None:
        error = self.assertRaises(
            HTTPInputError,
            Exchange,
            Application([("/", Upload)]),
            "POST",
            "/",
            {"Content-Type": "multipart/form-data", "Transfer-Encoding": "chunked"},
        )
        self.assertEqual(error.status, 400)


def _turn() -> Deferred[None]:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0.01)  # type: ignore[arg-type]


@stream_request_body
class Streaming(RequestHandler):
    """Records what is called, and does what the test has put into the application."""

    def prepare(self) -> Any:
        self.calls = ["prepare"]
        self.application.calls = self.calls  # type: ignore[attr-defined]
        action = self.settings.get("prepare")
        return action(self) if action else None

    def data_received(self, chunk: bytes) -> Any:
        self.calls.append(chunk.decode())
        action = self.settings.get("data_received")
        return action(self) if action else None

    def post(self) -> None:
        self.calls.append("post")
        self.write(str(len(self.calls)))

    def on_connection_close(self) -> None:
        self.calls.append("close")

    def on_finish(self) -> None:
        self.calls.append("finish")


class StreamTests(SynchronousTestCase):
    def begin(self, **settings: Any) -> tuple[Exchange, list[str]]:
        app = Application([("/", Streaming)], **settings)
        exchange = Exchange(app, "POST", "/", {"Content-Length": "6"})
        return exchange, app.calls  # type: ignore[attr-defined]

    def test_all_plain(self) -> None:
        exchange, calls = self.begin()
        self.assertIsNone(exchange.accepted)
        self.assertIsNone(exchange.send(b"a"))
        self.assertIsNone(exchange.send(b"b"))
        self.assertEqual(exchange.end().body, b"4")
        self.assertEqual(calls, ["prepare", "a", "b", "post", "finish"])

    def test_waiting_for_prepare(self) -> None:
        wait: Deferred[None] = Deferred()
        exchange, calls = self.begin(prepare=lambda handler: wait)
        self.assertNoResult(exchange.accepted)  # type: ignore[arg-type]
        wait.callback(None)
        self.successResultOf(exchange.accepted)  # type: ignore[arg-type]
        exchange.send(b"a")
        self.assertFalse(exchange.connection.finished)
        exchange.end()
        self.assertEqual(calls, ["prepare", "a", "post", "finish"])

    def test_waiting_for_a_piece(self) -> None:
        wait: Deferred[None] = Deferred()
        exchange, calls = self.begin(data_received=lambda handler: wait)
        taken = exchange.send(b"a")
        self.assertNoResult(taken)
        wait.callback(None)
        self.successResultOf(taken)
        exchange.end()
        self.assertEqual(calls, ["prepare", "a", "post", "finish"])

    def test_limit_in_prepare(self) -> None:
        exchange, _ = self.begin(prepare=lambda handler: handler.set_max_body_size(7))
        self.assertEqual(exchange.connection.max_body_size, 7)

    def test_early_answer(self) -> None:
        async def refuse(handler: RequestHandler) -> None:
            raise HTTPError(401)

        def refuse_at_once(handler: RequestHandler) -> None:
            raise HTTPError(401)

        for action in (refuse, refuse_at_once):
            exchange, calls = self.begin(prepare=action)
            self.assertEqual(exchange.connection.code, 401)
            self.assertIsNone(exchange.send(b"ignored"))
            exchange.end()
            self.assertEqual(calls, ["prepare", "finish"])

    def test_error_in_a_piece_answers(self) -> None:
        async def refuse(handler: RequestHandler) -> None:
            raise HTTPError(415)

        def refuse_at_once(handler: RequestHandler) -> None:
            raise HTTPError(415)

        async def prepare(handler: RequestHandler) -> None:
            pass

        for action in (refuse, refuse_at_once):
            for before in (None, prepare):
                exchange, calls = self.begin(data_received=action, prepare=before)
                exchange.send(b"a")
                self.assertEqual(exchange.connection.code, 415)
                exchange.send(b"b")
                exchange.end()
                self.assertEqual(calls, ["prepare", "a", "finish"])

    def test_client_that_leaves_within_the_body(self) -> None:
        async def prepare(handler: RequestHandler) -> None:
            pass

        for before in (None, prepare):
            exchange, calls = self.begin(prepare=before)
            exchange.send(b"a")
            with Logs() as logs:
                exchange.delegate.on_connection_close()
                exchange.connection.lose()
            self.assertEqual(calls, ["prepare", "a", "close", "finish"])
            self.assertEqual(logs.text, "")

    def test_client_that_leaves_while_a_piece_is_worked_on(self) -> None:
        wait: Deferred[None] = Deferred()
        exchange, calls = self.begin(data_received=lambda handler: wait, cancel_on_disconnect=True)
        exchange.send(b"a")
        exchange.delegate.on_connection_close()
        self.assertTrue(wait.called)
        self.assertEqual(calls, ["prepare", "a", "close", "finish"])

    def test_failing_initialize(self) -> None:
        @stream_request_body
        class Broken(RequestHandler):
            def initialize(self) -> None:
                raise HTTPError(503)

        exchange = Exchange(Application([("/", Broken)]), "POST", "/", {"Content-Length": "1"})
        self.assertEqual(exchange.connection.code, 503)
        exchange.send(b"a")

    def test_data_received_has_to_be_there(self) -> None:
        @stream_request_body
        class Nothing(RequestHandler):
            pass

        exchange = Exchange(Application([("/", Nothing)]), "POST", "/", {"Content-Length": "1"})
        with Logs():
            exchange.send(b"a")
        self.assertEqual(exchange.connection.code, 500)
