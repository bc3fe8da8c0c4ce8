"""Tests for the test cases, by running little test cases and looking at what they report."""

from __future__ import annotations

import gzip
import os
import socket
import sys
import unittest
from typing import Any
from unittest import mock

from twisted.application.service import Service
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import web
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPHeaders
from cycloneish.testing import (
    AsyncHTTPSTestCase,
    AsyncHTTPTestCase,
    AsyncTestCase,
    FetchClient,
    HTTPClientError,
    HTTPRequest,
    bind_unused_port,
    gen_test,
    get_async_test_timeout,
    setup_with_context_manager,
)
from cycloneish.testing.leftovers import LeftoverWatch

reactor: Any = global_reactor


def sleep(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


class Says(web.RequestHandler):
    def get(self) -> None:
        self.set_header("X-Protocol", self.request.protocol)
        for name in ("Authorization", "User-Agent", "Accept-Encoding", "Cookie", "Content-Type"):
            self.set_header(f"X-{name}", self.request.headers.get(name, ""))
        self.write(f"{self.request.method} ")
        self.write(self.request.body)

    post = put = patch = delete = get
    SUPPORTED_METHODS = (*web.RequestHandler.SUPPORTED_METHODS, "ODD")
    odd = get


class Redirects(web.RequestHandler):
    def get(self, code: str) -> None:
        self.redirect(self.get_argument("to", "/"), status=int(code))

    post = get


class Sleeps(web.RequestHandler):
    async def get(self) -> None:
        if self.get_argument("flush", ""):
            self.write("begun")
            await self.flush()
        await Sleeps.wake

    wake: Deferred[None]


class Zipped(web.RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Encoding", "gzip")
        self.write(gzip.compress(b"unzipped"))


def make_app() -> web.Application:
    return web.Application(
        [("/", Says), ("/redirect/([0-9]+)", Redirects), ("/sleeps", Sleeps), ("/zipped", Zipped)]
    )


class FetchTests(AsyncHTTPTestCase):
    def setUp(self) -> Any:
        Sleeps.wake = wake = Deferred()
        self.addCleanup(lambda: wake.callback(None))
        return super().setUp()

    def get_app(self) -> web.Application:
        return make_app()

    @inlineCallbacks
    def test_with_yield(self) -> Any:
        response = yield self.fetch("/")
        self.assertEqual((response.code, response.reason, response.body), (200, "OK", b"GET "))
        self.assertEqual(response.buffer.read(), b"GET ")
        self.assertIsInstance(response.headers, HTTPHeaders)
        self.assertEqual(response.request.url, self.get_url("/"))
        self.assertGreater(response.request_time, 0)

    async def test_absolute_urls_and_requests(self) -> None:
        other = HTTPServer(make_app())
        sock, port = bind_unused_port()
        other.add_sockets([sock])
        url = f"http://127.0.0.1:{port}/"
        response = await self.fetch(url)
        self.assertEqual((response.request.url, response.effective_url), (url, url))
        response = await self.http_client.fetch(HTTPRequest(url, "POST", body=b"x"))
        self.assertEqual(response.body, b"POST x")
        await other.stop()

    async def test_bodies_headers_and_methods(self) -> None:
        response = await self.fetch("/", method="POST", body="é")
        self.assertEqual(response.text, "POST é")
        self.assertEqual(response.headers["X-Content-Type"], "application/x-www-form-urlencoded")
        response = await self.fetch("/", method="PUT", body=b"", headers={"Cookie": "a=b"}, user_agent="me")
        self.assertEqual((response.headers["X-Cookie"], response.headers["X-User-Agent"]), ("a=b", "me"))
        response = await self.fetch("/", auth_username="ann", auth_password="x")
        self.assertEqual(response.headers["X-Authorization"], "Basic YW5uOng=")
        response = await self.fetch("/", method="ODD", allow_nonstandard_methods=True)
        self.assertEqual(response.body, b"ODD ")

    async def test_what_is_no_request(self) -> None:
        for error, options in (
            (KeyError, {"method": "ODD"}),
            (ValueError, {"method": "POST"}),
            (ValueError, {"body": "x"}),
            (TypeError, {"no_such_option": 1}),
        ):
            with self.assertRaises(error):
                await self.fetch("/", **options)

    async def test_errors_of_the_status(self) -> None:
        response = await self.fetch("/nowhere")
        self.assertEqual(response.code, 404)
        with self.assertRaises(HTTPClientError) as caught:
            await self.fetch("/nowhere", raise_error=True)
        self.assertEqual((caught.exception.code, caught.exception.response.code), (404, 404))  # type: ignore[union-attr]

    async def test_redirects(self) -> None:
        for code, method, said in ((301, "POST", b"GET "), (303, "POST", b"GET "), (307, "POST", b"POST x")):
            response = await self.fetch(f"/redirect/{code}", method=method, body="x")
            self.assertEqual((response.body, response.effective_url), (said, self.get_url("/")))
            self.assertEqual(response.request.url, self.get_url(f"/redirect/{code}"))
        response = await self.fetch("/redirect/302", follow_redirects=False)
        self.assertEqual((response.code, response.headers["Location"]), (302, "/"))
        response = await self.fetch("/redirect/302?to=/redirect/302", max_redirects=0)
        self.assertEqual(response.code, 302)

    async def test_secrets_stay_behind_on_the_way_to_another_host(self) -> None:
        target = f"http://localhost:{self.get_http_port()}/"
        response = await self.fetch(f"/redirect/302?to={target}", headers={"Authorization": "secret"})
        self.assertEqual((response.effective_url, response.headers["X-Authorization"]), (target, ""))

    async def test_gzip(self) -> None:
        response = await self.fetch("/zipped")
        self.assertEqual(response.body, b"unzipped")
        self.assertEqual(response.headers["X-Consumed-Content-Encoding"], "gzip")
        response = await self.fetch("/zipped", decompress_response=False)
        self.assertEqual(gzip.decompress(response.body), b"unzipped")

    async def test_callbacks(self) -> None:
        lines: list[str] = []
        pieces: list[bytes] = []
        response = await self.fetch("/", header_callback=lines.append, streaming_callback=pieces.append)
        self.assertEqual((response.body, b"".join(pieces)), (b"", b"GET "))
        self.assertEqual((lines[0], lines[-1]), ("HTTP/1.1 200 OK\r\n", "\r\n"))
        self.assertIn("X-Protocol: http\r\n", lines)

    async def test_time_outs_say_how_far_it_came(self) -> None:
        with self.assertRaises(TimeoutError) as caught:
            await self.fetch("/sleeps", request_timeout=0.05)
        self.assertIn("took more than 0.05 s: no connection, or no headers", str(caught.exception))
        with self.assertRaises(TimeoutError) as caught:
            await self.fetch("/sleeps?flush=1", request_timeout=0.2)
        self.assertIn("the response has begun and not ended", str(caught.exception))

    async def test_a_fetch_under_way_does_not_hold_up_the_end(self) -> None:
        self.fetch("/sleeps")
        await sleep(0.02)


class HTTPSTests(AsyncHTTPSTestCase):
    def get_app(self) -> web.Application:
        return make_app()

    async def test_over_tls(self) -> None:
        self.assertTrue(self.get_url("/").startswith("https://127.0.0.1:"))
        response = await self.fetch("/")
        self.assertEqual((response.code, response.headers["X-Protocol"]), (200, "https"))
        response = await self.fetch(f"https://localhost:{self.get_http_port()}/")
        self.assertEqual(response.code, 200)

    async def test_a_client_that_checks_refuses_the_certificate(self) -> None:
        client = FetchClient()
        with self.assertRaises(Exception):  # noqa: B017 - what it is depends on OpenSSL
            await client.fetch(self.get_url("/"))
        await client.close()

    def test_without_the_libraries_it_says_what_to_install(self) -> None:
        with mock.patch.dict(sys.modules, {"cycloneish.testing.certificates": None}):
            error = self.assertRaises(ImportError, self.default_ssl_options)
        self.assertIn("cycloneish[tls]", str(error))


class Recorder(Service):
    def __init__(self) -> None:
        self.events: list[str] = []

    def startService(self) -> Deferred[None]:  # type: ignore[override]
        self.events.append("start")
        return succeed(None)

    def stopService(self) -> Deferred[None]:
        self.events.append("stop")
        return sleep(0)


def run(case: type[unittest.TestCase], name: str | None = None) -> TestResult:
    """Run the tests of a class, or one of them."""
    result = TestResult()
    names = [name] if name else unittest.defaultTestLoader.getTestCaseNames(case)
    for one in names:
        case(one).run(result)
    return result


def texts(result: TestResult) -> str:
    return "\n".join(failure.getTraceback() for _, failure in [*result.errors, *result.failures])


class AppTests(SynchronousTestCase):
    """What AsyncHTTPTestCase takes for an application, and what it does when that goes wrong."""

    def test_a_coroutine_that_makes_it_and_its_service(self) -> None:
        service = Recorder()

        class Case(AsyncHTTPTestCase):
            async def get_app(self) -> web.Application:
                await sleep(0)
                app = make_app()
                app.service = service  # type: ignore[attr-defined]
                return app

            async def test_it(self) -> None:
                service.events.append(str((await self.fetch("/")).code))

        result = run(Case)
        self.assertEqual(texts(result), "")
        self.assertEqual(service.events, ["start", "200", "stop"])

    def test_it_is_forgotten_afterwards(self) -> None:
        class Case(AsyncHTTPTestCase):
            def get_app(self) -> web.Application:
                return make_app()

            def test_it(self) -> None:
                self.assertTrue(hasattr(self, "_app") and hasattr(self, "http_server"))

        case = Case("test_it")
        result = TestResult()
        case.run(result)
        self.assertEqual(texts(result), "")
        self.assertFalse(hasattr(case, "_app") or hasattr(case, "http_server"))

    def test_get_app_is_needed(self) -> None:
        class Case(AsyncHTTPTestCase):
            def test_it(self) -> None:
                """Not reached."""

        self.assertIn("Case has to define get_app()", texts(run(Case)))


class ReturnTests(SynchronousTestCase):
    """What a test method may be."""

    def test_a_generator_without_a_decorator(self) -> None:
        class Case(AsyncTestCase):
            def test_it(self) -> Any:
                yield

        self.assertIn("should be decorated with gen_test or inlineCallbacks", texts(run(Case)))

    def test_a_value(self) -> None:
        class Case(AsyncTestCase):
            def test_it(self) -> Any:
                return 42

        self.assertIn("Return value from test method ignored: 42", texts(run(Case)))

    def test_a_coroutine_runs(self) -> None:
        ran = []

        class Case(AsyncTestCase):
            async def test_it(self) -> None:
                await sleep(0)
                ran.append(1)

            test_it.skip = None  # type: ignore[attr-defined]

            async def test_skipped(self) -> None:
                ran.append(2)

            test_skipped.skip = "no"  # type: ignore[attr-defined]

        result = run(Case)
        self.assertEqual((texts(result), ran, len(result.skips)), ("", [1], 1))

    def test_set_up_and_tear_down_call_those_of_other_bases(self) -> None:
        events = []

        class Other(unittest.TestCase):
            def setUp(self) -> None:
                events.append("setUp")

            def tearDown(self) -> None:
                events.append("tearDown")

        class Case(AsyncTestCase, Other):
            def test_it(self) -> None:
                events.append("test")

        self.assertEqual(texts(run(Case)), "")
        self.assertEqual(events, ["setUp", "test", "tearDown"])


class LeftoverTests(SynchronousTestCase):
    """What stays on the reactor is named with the line that made it."""

    def left(self, method: Any, **attributes: Any) -> str:
        result = run(type("Case", (AsyncTestCase,), {"test_it": method, **attributes}))
        text = texts(result)
        # Trial finds nothing more to complain about.
        self.assertNotIn("DirtyReactor", text)
        return text

    def test_nothing(self) -> None:
        self.assertEqual(self.left(lambda self: reactor.callLater(0, lambda: None) and None), "")
        self.assertEqual(self.left(lambda self: sleep(0.01)), "")

    def test_a_delayed_call(self) -> None:
        def makes_a_timer(_: Any) -> None:
            reactor.callLater(50, len, "x")

        line = makes_a_timer.__code__.co_firstlineno + 1
        text = self.left(makes_a_timer)
        self.assertIn("the test left 1 thing on the reactor:", text)
        self.assertIn("* a delayed call of len, due in 50 s", text)
        self.assertIn(f"made at {__file__}:{line} in makes_a_timer", text)
        self.assertEqual([call for call in reactor.getDelayedCalls() if call.func is len], [])

    def test_a_port_and_a_connection(self) -> None:
        def opens_a_port(_: Any) -> Deferred[None]:
            factory = Factory.forProtocol(Protocol)
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.client = socket.create_connection(("127.0.0.1", port.getHost().port))
            return sleep(0.02)

        self.addCleanup(lambda: self.client.close())
        text = self.left(opens_a_port)
        self.assertIn("the test left 2 things on the reactor:", text)
        self.assertIn("* a listening port, IPv4Address", text)
        self.assertIn("* a connection from IPv4Address", text)
        self.assertIn("in opens_a_port", text)

    def test_a_connection_of_a_server_that_reads_from_all_together(self) -> None:
        def serves(_: Any) -> Deferred[None]:
            port = HTTPServer(lambda request: None).listen(0, "127.0.0.1")
            self.client = socket.create_connection(("127.0.0.1", port.getHost().port))
            return sleep(0.02)

        self.addCleanup(lambda: self.client.close())
        text = self.left(serves)
        self.assertIn("* a connection from IPv4Address", text)
        self.client.settimeout(5)
        self.assertRaises(ConnectionResetError, self.client.recv, 1)

    def test_what_was_there_before_is_not_its_fault(self) -> None:
        call = reactor.callLater(50, lambda: None)
        self.addCleanup(lambda: call.active() and call.cancel())  # trial may have done so

        class Case(AsyncTestCase):
            def test_it(self) -> None:
                """Nothing."""

        self.assertNotIn("LeftoverError", texts(run(Case)))

    def test_the_check_can_be_left_out(self) -> None:
        calls = []
        result = run(
            type(
                "Case",
                (AsyncTestCase,),
                {"test_it": lambda self: calls.append(reactor.callLater(50, len)), "check_leftovers": False},
            )
        )
        self.assertNotIn("LeftoverError", texts(result))

    def test_the_failure_of_the_tear_down_goes_first(self) -> None:
        def fail(_: Any) -> None:
            raise LookupError("in tearDown")

        text = self.left(lambda self: None, tearDown=fail)
        self.assertIn("in tearDown", text)

    def test_things_without_an_address(self) -> None:
        class Reactor:
            def getDelayedCalls(self) -> list[object]:
                return []

            getReaders = getWriters = getDelayedCalls
            callLater = addReader = addWriter = None

        thing = mock.Mock(spec=["fileno"])
        watch = LeftoverWatch(Reactor())
        self.assertIn("Mock", watch.describe([thing]))


class GenTestTests(SynchronousTestCase):
    def run_method(self, method: Any) -> str:
        self.ran: list[Any] = []
        return texts(run(type("Case", (AsyncTestCase,), {"test_it": method, "outer": self})))

    def test_every_kind_of_test(self) -> None:
        @gen_test
        def plain(case: Any) -> None:
            case.outer.ran.append("plain")

        @gen_test
        def generator(case: Any) -> Any:
            yield sleep(0)
            one = yield succeed(1)
            several = yield [succeed(2), sleep(0)]
            by_name = yield {"a": succeed(3)}
            yield None
            case.outer.ran.append((one, several, by_name))

        @gen_test(timeout=1)
        async def coroutine(case: Any) -> None:
            await sleep(0)
            case.outer.ran.append("coroutine")

        @gen_test()
        def returns(case: Any) -> Deferred[None]:
            return sleep(0).addCallback(lambda _: case.outer.ran.append("returns"))

        for method, expected in (
            (plain, "plain"),
            (generator, (1, [2, None], {"a": 3})),
            (coroutine, "coroutine"),
            (returns, "returns"),
        ):
            self.assertEqual(self.run_method(method), "")
            self.assertEqual(self.ran, [expected])

    def test_errors_reach_the_generator_and_the_report(self) -> None:
        @gen_test
        def generator(case: Any) -> Any:
            try:
                yield sleep(0).addCallback(lambda _: 1 / 0)
            except ZeroDivisionError:
                case.outer.ran.append("caught")
            yield 42

        text = self.run_method(generator)
        self.assertEqual(self.ran, ["caught"])
        self.assertIn("a test yielded 42, which is nothing one can wait for", text)

    def test_a_time_out_names_the_line_that_waited(self) -> None:
        @gen_test(timeout=0.05)
        def generator(_: Any) -> Any:
            yield Deferred()

        @gen_test(timeout=0.05)
        async def coroutine(_: Any) -> None:
            await inner()

        async def inner() -> None:
            await Deferred()  # here

        for method, words in (
            (generator, ("in generator",)),
            (coroutine, ("in inner", "called from", "in coroutine")),
        ):
            text = self.run_method(method)
            self.assertIn("TimeoutError: the test was not done after 0.05 s; it waits at", text)
            for word in words:
                self.assertIn(word, text)
        self.assertIn("await Deferred()  # here", text)

    def test_a_test_that_will_not_be_cancelled_fails_all_the_same(self) -> None:
        @gen_test(timeout=0.05)
        async def stubborn(_: Any) -> None:
            try:
                await Deferred()
            except BaseException:
                pass

        self.assertIn("the test was not done after 0.05 s", self.run_method(stubborn))

    def test_the_time_out_comes_from_the_environment(self) -> None:
        @gen_test
        async def long(_: Any) -> None:
            await Deferred()

        @gen_test(timeout=1)
        async def own(_: Any) -> None:
            await sleep(0.05)

        with mock.patch.dict(os.environ, {"ASYNC_TEST_TIMEOUT": "0.01"}):
            self.assertIn("not done after 0.01 s", self.run_method(long))
            self.assertEqual(self.run_method(own), "")

    def test_arguments_are_handed_on(self) -> None:
        @gen_test
        def method(*args: Any, **kwargs: Any) -> Any:
            return succeed((args, kwargs))

        self.assertEqual(self.successResultOf(method(1, a=2)), ((1,), {"a": 2}))


class HelperTests(SynchronousTestCase):
    def test_time_out(self) -> None:
        for value, expected in (("0.5", 0.5), ("nonsense", 5.0)):
            with mock.patch.dict(os.environ, {"ASYNC_TEST_TIMEOUT": value}):
                self.assertEqual(get_async_test_timeout(), expected)

    def test_a_port_nobody_uses(self) -> None:
        sock, port = bind_unused_port()
        self.addCleanup(sock.close)
        self.assertEqual(sock.getsockname(), ("127.0.0.1", port))
        self.assertFalse(sock.getblocking())
        socket.create_connection(("127.0.0.1", port)).close()
        self.assertRaises(OSError, bind_unused_port, address="192.0.2.1")

    def test_a_port_to_share(self) -> None:
        sock, port = bind_unused_port(reuse_port=True, address="0.0.0.0")
        self.addCleanup(sock.close)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("0.0.0.0", port))

    def test_a_context_manager_for_one_test(self) -> None:
        events = []

        class Manager:
            def __enter__(self) -> str:
                events.append("enter")
                return "value"

            def __exit__(self, *exc_info: object) -> None:
                events.append("exit")

        class Case(unittest.TestCase):
            def setUp(self) -> None:
                events.append(setup_with_context_manager(self, Manager()))  # type: ignore[arg-type]

            def test_it(self) -> None:
                events.append("test")

        Case("test_it").run(unittest.TestResult())
        self.assertEqual(events, ["enter", "value", "test", "exit"])
