"""WSGIContainer: the environment, threads, and bodies that stream in both directions."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.validate import validator

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import wsgi
from cycloneish.httputil import HTTPHeaders, HTTPServerRequest
from cycloneish.web import Application, FallbackHandler
from cycloneish.wsgi import WSGIContainer
from tests.web.live import LiveTestCase, sleep


def plain(start_response: Any, status: str = "200 OK", **headers: str) -> Any:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return start_response(status, [("Content-Type", "text/plain"), *fields])


class WSGITestCase(LiveTestCase):
    container: WSGIContainer

    def run_app(self, app: Any, threads: int = 0, **options: Any) -> None:
        executor = ThreadPoolExecutor(threads) if threads else None
        self.container = WSGIContainer(app, executor, **options)
        if executor is not None:
            self.addCleanup(executor.shutdown)
        self.addCleanup(self.container.close)
        self.serve(Application([(".*", FallbackHandler, {"fallback": self.container})]))


class AnswerTests(WSGITestCase):
    async def test_a_valid_application_behind_a_handler_and_without_one(self) -> None:
        @validator
        def app(environ: Any, start_response: Any) -> Any:
            start_response("201 Made", [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")])
            return [b"hello ", environ["REQUEST_METHOD"].encode()]

        self.run_app(app)
        for _ in range(2):
            response = await self.fetch("/x")
            self.assertEqual((response.code, response.reason), (201, "Made"))
            self.assertEqual(response.body, b"hello GET")
            self.assertEqual(response.headers.get_list("X-A"), ["1", "2"])
            self.serve(self.container)

    async def test_a_generator_is_sent_piece_by_piece_on_a_connection_that_stays(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)

        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            yield b"first "
            goes_on.wait(5)
            yield b""
            yield b"second"

        self.run_app(app)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(b"first ")
        self.assertNotIn(b"second", client.data)
        goes_on.set()
        await client.until(b"0\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked", client.data)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(lambda data: data.count(b"0\r\n\r\n") == 2)

    async def test_the_write_callable_and_close(self) -> None:
        closed = []

        class Result(list[bytes]):
            def close(self) -> None:
                closed.append(threading.current_thread().name)

        def app(environ: Any, start_response: Any) -> Any:
            write = plain(start_response)
            write(b"written ")
            return Result([b"returned"])

        self.run_app(app)
        response = await self.fetch("/")
        self.assertEqual(response.body, b"written returned")
        self.assertTrue(closed[0].startswith("wsgi"))

    async def test_head_204_and_304_have_no_body(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response, environ["QUERY_STRING"] or "200 OK")
            return [b"body"]

        self.run_app(app)
        head = await self.fetch("/", "HEAD")
        self.assertEqual((head.body, head.headers["Content-Length"]), (b"", "4"))
        for status in ("204", "304"):
            response = await self.fetch(f"/?{status}")
            self.assertEqual((response.code, response.body), (int(status), b""))

    async def test_headers_of_the_connection_are_not_the_applications(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response, Transfer_Encoding="chunked", Connection="upgrade", Keep_Alive="1")
            return [b"body"]

        self.run_app(app)
        response = await self.fetch("/")
        self.assertEqual(response.body, b"body")
        self.assertNotIn("Keep-Alive", response.headers)
        self.assertNotIn("Transfer-Encoding", response.headers)

    async def test_a_second_start_response_before_anything_is_sent(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            try:
                raise ValueError
            except ValueError as error:
                start_response("503 Busy", [], (ValueError, error, error.__traceback__))
            return [b"sorry"]

        self.run_app(app)
        self.assertEqual((await self.fetch("/")).code, 503)


class ErrorTests(WSGITestCase):
    async def failing(self, app: Any) -> Any:
        self.run_app(app)
        with self.assertLogs("cycloneish.application", "ERROR") as logs:
            response = await self.fetch("/")
        self.assertIn("Uncaught exception in WSGI application", logs.output[0])
        return response, logs.output[0]

    async def test_an_exception_is_a_500_and_logged_with_its_traceback(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            raise ZeroDivisionError("broken")

        response, log = await self.failing(app)
        self.assertEqual(response.code, 500)
        self.assertIn("ZeroDivisionError: broken", log)
        self.assertNotIn(b"broken", response.body)

    async def test_misuse_is_a_500(self) -> None:
        def no_start(environ: Any, start_response: Any) -> Any:
            return [b""]

        def text(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            yield "text"

        def twice(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            plain(start_response)
            return [b""]

        def injection(environ: Any, start_response: Any) -> Any:
            plain(start_response, X_A="1\r\nX-B: 2")
            return [b""]

        def no_length(environ: Any, start_response: Any) -> Any:
            plain(start_response, Content_Length="abc")
            return [b""]

        def no_status(environ: Any, start_response: Any) -> Any:
            start_response("OK", [])
            return [b""]

        for app in (no_start, text, twice, injection, no_length, no_status):
            response, _ = await self.failing(app)
            self.assertEqual(response.code, 500, app.__name__)
            self.assertNotIn("X-B", response.headers)

    async def test_more_than_was_announced_breaks_the_connection(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response, Content_Length="2")
            return [b"abc"]

        response, log = await self.failing(app)
        self.assertEqual(response.code, 0)
        self.assertIn("more data than Content-Length", log)

    async def test_an_exception_after_the_head_breaks_the_connection(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response, Content_Length="100")
            yield b"part"
            raise RuntimeError("half-way")

        response, log = await self.failing(app)
        self.assertEqual(response.code, 200)
        self.assertFalse(response.complete)
        self.assertIn("half-way", log)


class RequestTests(WSGITestCase):
    async def echo(self, read: Any, **options: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            return [read(environ)]

        self.run_app(app, **options)

    async def test_ways_to_read_the_body(self) -> None:
        body = b"one\ntwo\n" + b"x" * 70_000 + b"\nend"
        for read, expected in [
            (lambda e: e["wsgi.input"].read(), body),
            (lambda e: e["wsgi.input"].read(5) + e["wsgi.input"].read(3), body[:8]),
            (lambda e: e["wsgi.input"].readline() + e["wsgi.input"].readline(2), b"one\ntw"),
            (lambda e: b"|".join(e["wsgi.input"]), b"one\n|two\n|" + b"x" * 70_000 + b"\n|end"),
            (lambda e: b"|".join(e["wsgi.input"].readlines(5)), b"one\n|two\n"),
            (lambda e: b"%d" % len(e["wsgi.input"].readlines()), b"4"),
            (lambda e: e["CONTENT_LENGTH"].encode(), str(len(body)).encode()),
        ]:
            await self.echo(read)
            response = await self.fetch("/", "POST", body=body)
            self.assertEqual(response.body, expected)

    async def test_a_chunked_body_gets_a_length_when_it_is_complete(self) -> None:
        await self.echo(lambda e: e["CONTENT_LENGTH"].encode() + e["wsgi.input"].read())
        client = await self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        await client.until(b"5abcde")

    async def test_the_environment(self) -> None:
        seen: dict[str, Any] = {}

        def read(environ: Any) -> bytes:
            seen.update(environ)
            return b""

        await self.echo(read, script_name="/app")
        headers = {"X-One": "1", "X_Spoofed": "2", "Content-Type": "text/x", "Cookie": "a=b"}
        await self.fetch("/app/caf%C3%A9%20x?q=%20", "POST", headers, b"abc")
        self.assertEqual(seen["SCRIPT_NAME"], "/app")
        self.assertEqual(seen["PATH_INFO"], "/caf\xc3\xa9 x")
        self.assertEqual(seen["QUERY_STRING"], "q=%20")
        self.assertEqual(seen["HTTP_X_ONE"], "1")
        self.assertNotIn("HTTP_X_SPOOFED", seen)
        self.assertEqual((seen["CONTENT_TYPE"], seen["HTTP_COOKIE"]), ("text/x", "a=b"))
        self.assertEqual((seen["SERVER_NAME"], seen["SERVER_PORT"]), ("127.0.0.1", "80"))
        self.assertEqual(seen["REMOTE_ADDR"], "127.0.0.1")
        self.assertFalse(seen["wsgi.multithread"])

    async def test_a_long_body_streams_and_waits_for_the_application(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        started = threading.Event()

        def read(environ: Any) -> bytes:
            started.set()
            goes_on.wait(5)
            size = 0
            while part := environ["wsgi.input"].read(100_000):
                size += len(part)
            return b"%d" % size

        await self.echo(read)
        client = await self.connect()
        size = 30_000_000
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        self.patch(wsgi._Body, "feed", self.watched_feed(wsgi._Body.feed))
        client.send(bytes(size))
        while not started.is_set():
            await sleep(0.01)
        await sleep(0.2)
        self.assertLess(self.fed, 4_000_000)
        goes_on.set()
        await client.until(b"\r\n\r\n30000000")
        self.assertEqual(self.fed, size)

    fed = 0

    def watched_feed(self, feed: Any) -> Any:
        def watch(body: Any, chunk: bytes) -> None:
            self.fed += len(chunk)
            feed(body, chunk)

        return watch

    async def test_a_client_that_leaves_in_the_middle_of_a_long_body(self) -> None:
        error: list[BaseException] = []
        done = threading.Event()

        def read(environ: Any) -> bytes:
            try:
                return environ["wsgi.input"].read()
            except BaseException as caught:
                error.append(caught)
                raise
            finally:
                done.set()

        await self.echo(read)
        client = await self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(2_000_000))
        await sleep(0.1)
        client.transport.abortConnection()
        while not done.is_set():
            await sleep(0.01)
        self.assertIsInstance(error[0], ConnectionError)

    async def test_a_client_that_leaves_before_a_short_body_starts_nothing(self) -> None:
        await self.echo(lambda environ: self.fail("started"))
        client = await self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\nxx")
        await sleep(0.05)
        client.transport.abortConnection()
        await sleep(0.05)

    async def test_an_answer_before_the_body_is_read(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response, "403 No")
            return [b"no"]

        self.run_app(app)
        client = await self.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(2_000_000))
        await client.until(b"403 No")


class ThreadTests(WSGITestCase):
    async def test_without_an_executor_one_request_at_a_time(self) -> None:
        await self.meet(threads=0, expected=[b"alone", b"alone"])

    async def test_with_an_executor_several_at_once(self) -> None:
        await self.meet(threads=2, expected=[b"together", b"together"])

    async def meet(self, threads: int, expected: list[bytes]) -> None:
        barrier = threading.Barrier(2, timeout=0.2 if threads == 0 else 5)

        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            try:
                barrier.wait()
            except threading.BrokenBarrierError:
                return [b"alone"]
            return [b"together"]

        self.run_app(app, threads)
        responses = await gatherResults([Deferred.fromCoroutine(self.fetch("/")) for _ in range(2)])
        self.assertEqual([response.body for response in responses], expected)

    async def test_the_reactor_is_not_held_up(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)

        def app(environ: Any, start_response: Any) -> Any:
            goes_on.wait(5)
            plain(start_response)
            return [b"done"]

        self.run_app(app)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.05)
        goes_on.set()
        await client.until(b"done")

    async def test_a_slow_client_holds_the_application_back(self) -> None:
        produced = [0]
        ended: list[type[BaseException] | None] = []

        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            try:
                for _ in range(400):
                    produced[0] += 100_000
                    yield bytes(100_000)
                ended.append(None)
            except BaseException as error:
                ended.append(type(error))
                raise

        self.run_app(app)
        client = await self.connect()
        client.transport.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.3)
        self.assertLess(produced[0], 20_000_000)
        client.transport.resumeProducing()
        await client.until(lambda data: len(data) > 25_000_000)
        client.transport.abortConnection()
        while not ended:
            await sleep(0.01)
        self.assertEqual(ended, [GeneratorExit])

    async def test_context_variables_of_the_request_are_seen(self) -> None:
        user = contextvars.ContextVar("user", default="nobody")

        class Handler(FallbackHandler):
            def prepare(self) -> Any:
                user.set("somebody")
                return super().prepare()

        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            return [user.get().encode()]

        container = WSGIContainer(app)
        self.addCleanup(container.close)
        self.serve(Application([(".*", Handler, {"fallback": container})]))
        self.assertEqual((await self.fetch("/", "POST", body=b"x")).body, b"somebody")

    async def test_a_client_that_shuts_its_side_still_gets_the_answer(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            plain(start_response)
            return [b"answer"]

        self.run_app(app)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.transport.loseWriteConnection()
        await client.until(b"answer")
        self.assertIn(b"answer", client.data)


class EnvironTests(SynchronousTestCase):
    def test_environ_of_a_complete_request(self) -> None:
        headers = HTTPHeaders({"Content-Type": "a/b", "Content-Length": "2"})
        request = HTTPServerRequest("PUT", "/x", headers=headers, body=b"ab", host="[::1]:8888")
        environ = WSGIContainer(lambda *_: []).environ(request)
        self.assertEqual(environ["wsgi.input"].read(), b"ab")
        self.assertEqual((environ["SERVER_NAME"], environ["SERVER_PORT"]), ("[::1]", "8888"))
        self.assertEqual(environ["CONTENT_LENGTH"], "2")
        self.assertEqual(request.headers["Content-Type"], "a/b", "left as it was")
        self.assertEqual(wsgi.to_wsgi_str(b"\xff"), "\xff")
