"""RedirectHandler, ErrorHandler, FallbackHandler; and how browsers read URLs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from cycloneish.web import Application, ErrorHandler, FallbackHandler, RedirectHandler, RequestHandler
from cycloneish.web.browser_urls import is_protocol_relative, site_of
from cycloneish.web.mount import Mountable, MountedMessage
from tests.web.live import LiveTestCase, sleep


class RedirectTests(LiveTestCase):
    def setUp(self) -> None:
        self.serve(
            Application(
                [
                    ("/old", RedirectHandler, {"url": "/new"}),
                    ("/found", RedirectHandler, {"url": "/new?a=b", "permanent": False}),
                    (r"/any/(.*)", RedirectHandler, {"url": "{0}"}),
                    (r"/moved(.*)", RedirectHandler, {"url": "https://example.com{0}"}),
                    (r"/host/(.*)", RedirectHandler, {"url": "https://{0}"}),
                    (r"/named/(?P<year>[0-9]+)", RedirectHandler, {"url": "/{year}/all"}),
                    (r"/(.*?)/(.*?)/(.*)", RedirectHandler, {"url": "/{1}/{0}/{2}"}),
                ]
            )
        )

    async def location(self, path: str, method: str = "GET") -> tuple[int, str | None]:
        response = await self.fetch(path, method)
        return response.code, response.headers.get("Location")

    async def test_targets(self) -> None:
        self.assertEqual(await self.location("/old"), (301, "/new"))
        self.assertEqual(await self.location("/old", "HEAD"), (301, "/new"))
        self.assertEqual(await self.location("/old?x=1&x=2"), (301, "/new?x=1&x=2"))
        self.assertEqual(await self.location("/found?x=1"), (302, "/new?a=b&x=1"))
        self.assertEqual(await self.location("/named/2024"), (301, "/2024/all"))
        self.assertEqual(await self.location("/a/b/c"), (301, "/b/a/c"))
        self.assertEqual(await self.location("/moved/x"), (301, "https://example.com/x"))

    async def test_what_is_put_in_cannot_change_the_site(self) -> None:
        for path in [
            "/any///evil.example/x",
            "/any/https://evil.example/x",
            "/any/%5c%5cevil.example",
            "/any/%09//evil.example",
            "/any/javascript:alert(1)",
            "/any/%20//evil.example",
            "/any/%2F%2F%5B?x=1",
            "/host/evil.example/x",
            "/moved.evil.example/x",
            "/moved@evil.example/x",
            "/a//evil.example/b",
            "/a/%5Cevil.example/b",
            "/a/%09/evil.example/b",
            "/a////evil.example/b",
        ]:
            code, location = await self.location(path)
            self.assertEqual((code, location), (400, None), path)

    async def test_control_characters_do_not_reach_the_header(self) -> None:
        for path in ["/any/a%0d%0aX-Evil:%20yes", "/any/a%00b", "/any/%0Afoo"]:
            response = await self.fetch(path)
            self.assertEqual(response.code, 400, path)
            self.assertNotIn("X-Evil", response.headers)

    async def test_other_methods_are_not_redirected(self) -> None:
        self.assertEqual((await self.location("/old", "POST"))[0], 405)


class BrowserURLTests(SynchronousTestCase):
    def test_hosts_that_a_browser_finds(self) -> None:
        for url in ["//e.com", "/\\e.com", "\\\\e.com", "///e.com", "/\t/e.com", "  //e.com", "\n/\r/e.com"]:
            self.assertEqual(site_of(url), ("", "e.com"), repr(url))
            self.assertTrue(is_protocol_relative(url), repr(url))
        for url in ["/e.com", "e.com", "/a//e.com", "?//e.com", ""]:
            self.assertEqual(site_of(url), ("", ""), repr(url))
            self.assertFalse(is_protocol_relative(url), repr(url))
        self.assertEqual(site_of("HTTPS:\\\\User@E.com:1/x"), ("https", "user@e.com:1"))


class ErrorHandlerTests(LiveTestCase):
    async def test_every_method_gets_the_status(self) -> None:
        self.serve(
            Application(
                [("/gone", ErrorHandler, {"status_code": 410})], xsrf_cookies=True, cookie_secret="x" * 32
            )
        )
        for method in ("GET", "POST", "DELETE"):
            self.assertEqual((await self.fetch("/gone", method)).code, 410, method)


class Recorder(Mountable):
    """Takes requests and notes what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.hold: Deferred[None] | None = None

    def open_request(self, request: HTTPServerRequest) -> MountedMessage:
        recorder = self
        self.events.append(f"{request.method} {request.uri}")

        class Message(MountedMessage):
            def __init__(self) -> None:
                self.answered = Deferred()

            def data_received(self, chunk: bytes) -> Any:
                recorder.events.append(chunk)
                return recorder.hold

            def finish(self) -> None:
                recorder.events.append("end")
                headers = HTTPHeaders({"Content-Length": "2"})
                request.connection.write_headers(ResponseStartLine("", 201, "Created"), headers, b"ok")
                request.connection.finish()
                self.answered.callback(None)

            def on_connection_close(self) -> None:
                recorder.events.append("gone")
                self.answered.callback(None)

        return Message()


class FallbackTests(LiveTestCase):
    finished: list[str]

    def setUp(self) -> None:
        self.recorder = Recorder()
        self.finished = finished = []

        class Noting(FallbackHandler):
            def on_finish(self) -> None:
                finished.append(self.request.uri)

        def function(request: HTTPServerRequest) -> None:
            body = b"%s %s" % (request.uri.encode(), request.body)
            headers = HTTPHeaders({"Content-Length": str(len(body))})
            request.connection.write_headers(ResponseStartLine("", 200, "OK"), headers, body)
            request.connection.finish()

        class Inner(RequestHandler):
            def post(self) -> None:
                self.write("inner " + self.get_body_argument("a"))

        inner = Application([("/inner", Inner)])
        self.serve(
            Application(
                [
                    ("/function", Noting, {"fallback": function}),
                    ("/inner", Noting, {"fallback": inner}),
                    ("/mounted.*", Noting, {"fallback": self.recorder}),
                ]
            )
        )

    async def test_a_function_gets_the_request_with_its_body(self) -> None:
        response = await self.fetch("/function?x", "POST", body=b"body")
        self.assertEqual((response.code, response.body), (200, b"/function?x body"))
        self.assertEqual(self.finished, ["/function?x"])

    async def test_an_application(self) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await self.fetch("/inner", "POST", headers, b"a=5")
        self.assertEqual((response.code, response.body), (200, b"inner 5"))

    async def test_a_mountable_gets_the_body_while_it_arrives_and_can_hold_it_back(self) -> None:
        client = await self.connect()
        hold = self.recorder.hold = Deferred()
        client.send(b"POST /mounted HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd")
        while len(self.recorder.events) < 2:
            await sleep(0.01)
        client.send(b"efgh")
        await sleep(0.05)
        self.assertEqual(self.recorder.events, ["POST /mounted", b"abcd"])
        self.recorder.hold = None
        hold.callback(None)
        await client.until(b"\r\n\r\nok")
        self.assertEqual(self.recorder.events, ["POST /mounted", b"abcd", b"efgh", "end"])
        client.send(b"GET /mounted2 HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(lambda data: data.count(b"ok") == 2)
        self.assertEqual(self.finished, ["/mounted", "/mounted2"])

    async def test_methods_of_other_protocols_go_through(self) -> None:
        response = await self.fetch("/mounted", "PROPFIND")
        self.assertEqual((response.code, self.recorder.events[0]), (201, "PROPFIND /mounted"))

    async def test_a_client_that_leaves_in_the_middle_of_its_body(self) -> None:
        client = await self.connect()
        client.send(b"POST /mounted HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd")
        while len(self.recorder.events) < 2:
            await sleep(0.01)
        client.transport.abortConnection()
        await client.gone
        while len(self.finished) < 1:
            await sleep(0.01)
        self.assertEqual(self.recorder.events[-1], "gone")

    async def test_a_mountable_can_be_served_without_a_handler(self) -> None:
        self.serve(self.recorder)
        response = await self.fetch("/direct", "PUT", body=b"12")
        self.assertEqual(response.code, 201)
        self.assertEqual(self.recorder.events, ["PUT /direct", b"12", "end"])
        client = await self.connect()
        client.send(b"PUT /direct HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        await sleep(0.05)
        client.transport.abortConnection()
        await sleep(0.05)
        self.assertEqual(self.recorder.events[-1], "gone")

    def test_a_complete_request_can_be_given_to_a_mountable(self) -> None:
        class Connection:
            def write_headers(self, *args: Any) -> None: ...

            def finish(self) -> None: ...

        for hold in (None, Deferred()):
            self.recorder.events.clear()
            self.recorder.hold = hold
            self.recorder(HTTPServerRequest("PUT", "/x", body=b"12", connection=Connection()))  # type: ignore[arg-type]
            if hold is not None:
                self.assertEqual(self.recorder.events[-1], b"12")
                hold.callback(None)
            self.assertEqual(self.recorder.events, ["PUT /x", b"12", "end"])
