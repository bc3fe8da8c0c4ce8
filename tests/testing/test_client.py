"""Tests for the in-memory client: what it sends, what it gives back, and the awkward ways of a client."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import unittest
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish import web
from cycloneish.httpserver import HTTPServer
from cycloneish.testing import (
    Client,
    ExpectLog,
    HTTPClientError,
    IncompleteResponseError,
    SyncClient,
    wait_for,
)
from cycloneish.testing.wire import MalformedResponseError, ResponseReader

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT}


class Echo(web.RequestHandler):
    """Says what came."""

    def prepare(self) -> None:
        self.set_header("X-Method", self.request.method or "")

    def get(self) -> None:
        self.write(
            {
                "arguments": {
                    name: [value.decode() for value in values]
                    for name, values in self.request.arguments.items()
                },
                "files": {
                    name: [[file.filename, file.content_type, file.body.decode()] for file in files]
                    for name, files in self.request.files.items()
                },
                "headers": dict(self.request.headers.get_all()),
                "body": self.request.body.decode("latin-1"),
                "uri": self.request.uri,
                "url": self.request.full_url(),
                "ip": self.request.remote_ip,
                "version": self.request.version,
            }
        )

    post = put = patch = delete = get

    def head(self) -> None:
        self.set_header("Content-Length", "1000")

    def options(self) -> None:
        self.set_status(204)


class Cookies(web.RequestHandler):
    def get(self) -> None:
        action = self.get_argument("do", "")
        if action == "set":
            self.set_cookie("plain", "a,b")
            self.set_cookie("deep", "1", path="/cookies/deep")
            self.set_cookie("tls", "1", secure=True)
            self.set_cookie("short", "1", max_age=100)
            self.set_signed_cookie("signed", "ann")
        elif action == "clear":
            self.clear_cookie("plain")
            self.clear_cookie("short")
        self.write({name: morsel.value for name, morsel in self.request.cookies.items()})
        user = self.get_signed_cookie("signed")
        self.set_header("X-User", user.decode() if user else "")


class Form(web.RequestHandler):
    def get(self) -> None:
        self.write(self.xsrf_token)

    def post(self) -> None:
        self.write("accepted")


class Redirect(web.RequestHandler):
    def get(self, code: str) -> None:
        self.redirect("/echo?redirected=1", status=int(code))

    post = get


class Loop(web.RequestHandler):
    def get(self) -> None:
        self.redirect("/loop")


class Broken(web.RequestHandler):
    def get(self) -> None:
        raise ZeroDivisionError("broken on purpose")

    @inlineCallbacks
    def post(self) -> Any:
        yield succeed(None)
        raise LookupError("broken later")

    def put(self) -> None:
        raise web.HTTPError(418)


class Waits(web.RequestHandler):
    waiting: Deferred[str] = Deferred()
    left: list[str] = []
    finished: list[str] = []

    @inlineCallbacks
    def get(self) -> Any:
        Waits.waiting = Deferred()
        self.write((yield Waits.waiting))

    def on_connection_close(self) -> None:
        Waits.left.append("left")

    def on_finish(self) -> None:
        Waits.finished.append("finished")


class Sleeps(web.RequestHandler):
    async def get(self) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, float(self.get_argument("for")), lambda: None)  # type: ignore[arg-type]
        self.write(await deferToThread(lambda: "slept"))


class Streams(web.RequestHandler):
    go: Deferred[None] = Deferred()

    @inlineCallbacks
    def get(self) -> Any:
        self.write("one")
        yield self.flush()
        yield Streams.go
        self.write("two")

    @inlineCallbacks
    def post(self) -> Any:
        for _ in range(40):
            self.write(b"x" * 10000)
            yield self.flush()
            Streams.flushed += 1

    flushed = 0


@web.stream_request_body
class Upload(web.RequestHandler):
    pieces: list[bytes] = []
    hold: Deferred[None] | None = None

    def prepare(self) -> None:
        Upload.pieces = []

    def data_received(self, chunk: bytes) -> Deferred[None] | None:
        Upload.pieces.append(chunk)
        return Upload.hold

    def post(self) -> None:
        self.write(str(sum(map(len, Upload.pieces))))


class Half(web.RequestHandler):
    @inlineCallbacks
    def get(self) -> Any:
        self.set_header("Content-Length", "10")
        self.write("12345")
        yield self.flush()
        self.request.connection.stream.close()  # type: ignore[union-attr]


def let_go(case: SynchronousTestCase) -> None:
    """Do not leave a handler waiting behind, or it ends in the middle of another test."""

    def go_on() -> None:
        if not Waits.waiting.called:
            Waits.waiting.callback("")

    case.addCleanup(go_on)


def make_app(**settings: Any) -> web.Application:
    return web.Application(
        [
            ("/echo", Echo),
            ("/cookies.*", Cookies),
            ("/form", Form),
            ("/redirect/([0-9]+)", Redirect),
            ("/loop", Loop),
            ("/broken", Broken),
            ("/waits", Waits),
            ("/sleeps", Sleeps),
            ("/streams", Streams),
            ("/upload", Upload),
            ("/half", Half),
        ],
        cookie_secret="for tests alone",
        **settings,
    )


class ClientCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(make_app())
        let_go(self)
        self.addCleanup(self.client.close)

    # On the asyncio reactor a handler that waits is a task, which takes turns even when it need not wait.

    def result(self, deferred: Deferred[Any]) -> Any:
        return wait_for(deferred, each_turn=self.client.flush)

    def failure(self, deferred: Deferred[Any], *types: type[Exception]) -> Failure:
        failure = self.result(deferred.addErrback(lambda failure: [failure]))[0]
        self.assertTrue(failure.check(*types), failure)
        return failure  # type: ignore[no-any-return]


class RequestTests(ClientCase):
    def test_a_handler_that_does_not_wait_has_answered_at_once(self) -> None:
        response = self.result(self.client.get("/echo", params={"name": "é ü", "n": [1, 2]}))
        self.assertEqual((response.code, response.reason), (200, "OK"))
        self.assertEqual(response.json()["arguments"], {"name": ["é ü"], "n": ["1", "2"]})
        self.assertEqual(response.effective_url, "http://testserver/echo?name=%C3%A9+%C3%BC&n=1&n=2")
        self.assertIn("application/json", response.headers["Content-Type"])
        self.assertGreaterEqual(response.request_time or -1, 0)
        self.assertIsNone(response.error)
        response.rethrow()

    def test_every_method(self) -> None:
        for method in ("get", "post", "put", "patch", "delete", "head", "options"):
            response = self.result(getattr(self.client, method)("/echo"))
            self.assertEqual(response.headers["X-Method"], method.upper())
            self.assertEqual(bool(response.body), method not in ("head", "options"))

    def test_urls_are_encoded_and_joined(self) -> None:
        for path, uri in (
            ("echo", "/echo"),
            ("/echo?a=1#part", "/echo?a=1"),
            ("/echo?a=é 100%&b=%41", "/echo?a=%C3%A9%20100%25&b=%41"),
            ("http://other.example/echo", "/echo"),
        ):
            self.assertEqual(self.result(self.client.get(path)).json()["uri"], uri)
        self.assertEqual(self.client.url("http://x.example", {"a": "b"}), "http://x.example/?a=b")
        response = self.result(self.client.get("/echo?a=1", params=[("b", "2")]))
        self.assertEqual(response.json()["uri"], "/echo?a=1&b=2")

    def test_headers(self) -> None:
        client = Client(make_app(), headers={"X-One": "1", "X-Two": "2"}, base_url="https://example.com/")
        headers = self.result(client.get("/echo", headers=[("x-two", "3"), ("X-Three", "a")])).json()[
            "headers"
        ]
        self.assertEqual((headers["X-One"], headers["X-Two"], headers["X-Three"]), ("1", "3", "a"))
        self.assertEqual(headers["Host"], "example.com")

    def test_who_asks_and_how(self) -> None:
        request = self.client.get(
            "/echo", remote_ip="10.1.2.3", protocol="https", host="shop.example", version="HTTP/1.0"
        )
        said = self.result(request).json()
        self.assertEqual(
            (said["ip"], said["url"], said["version"]), ("10.1.2.3", "https://shop.example/echo", "HTTP/1.0")
        )
        self.assertEqual(
            self.result(self.client.get("/echo", remote_ip="2001:db8::1")).json()["ip"], "2001:db8::1"
        )

    def test_bodies(self) -> None:
        said = self.result(self.client.post("/echo", body="raw")).json()
        self.assertEqual((said["body"], said["headers"]["Content-Length"]), ("raw", "3"))
        said = self.result(self.client.post("/echo", json={"a": [None]})).json()
        self.assertEqual(
            (said["body"], said["headers"]["Content-Type"]), ('{"a": [null]}', "application/json")
        )
        self.assertEqual(self.result(self.client.put("/echo", json=None)).json()["body"], "null")
        said = self.result(self.client.post("/echo", form={"a": "é", "b": [1, 2]})).json()
        self.assertEqual(said["arguments"], {"a": ["é"], "b": ["1", "2"]})
        self.assertEqual(self.result(self.client.post("/echo")).json()["headers"]["Content-Length"], "0")

    def test_files(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"from disk")
        with open(path, "rb") as file:
            files = {
                "plain": b"bytes",
                "named": ('a "b"\n.txt', "text"),
                "typed": ("x.bin", b"1", "image/x-test"),
                "disk": file,
                "many": [("1.png", b"1"), ("2.png", b"2")],
            }
            said = self.result(self.client.post("/echo", form={"field": "é"}, files=files)).json()
        self.assertEqual(said["arguments"], {"field": ["é"]})
        self.assertEqual(
            said["files"],
            {
                "plain": [["file", "application/octet-stream", "bytes"]],
                "named": [["a %22b%22%0A.txt", "text/plain", "text"]],
                "typed": [["x.bin", "image/x-test", "1"]],
                "disk": [[os.path.basename(path), "application/octet-stream", "from disk"]],
                "many": [["1.png", "image/png", "1"], ["2.png", "image/png", "2"]],
            },
        )
        said = self.result(self.client.post("/echo", files=[("f", b"1"), ("f", b"2")])).json()
        self.assertEqual(len(said["files"]["f"]), 2)

    def test_one_kind_of_body_at_a_time(self) -> None:
        self.assertRaises(TypeError, self.client.post, "/echo", body=b"", json={})
        self.assertRaises(TypeError, self.client.post, "/echo", json=1, form={})
        self.assertRaises(TypeError, self.client.open, "POST", "/echo", body=b"x", stream_body=True)

    def test_a_status_that_is_an_error(self) -> None:
        response = self.result(self.client.get("/nowhere"))
        self.assertEqual(response.code, 404)
        error = self.assertRaises(HTTPClientError, response.rethrow)
        self.assertEqual((error.code, str(error)), (404, "HTTP 404: Not Found"))
        self.assertIs(error.response, response)
        self.assertIn("404", repr(response) + repr(error))

    def test_anything_that_a_server_serves(self) -> None:
        def answer(request: Any) -> None:
            request.connection.write(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok")
            request.connection.finish()

        self.assertEqual(self.result(Client(answer).get("/")).body, b"ok")
        client = Client(HTTPServer(make_app(), reactor=self.client._clock))
        self.assertEqual(self.result(client.get("/echo")).code, 200)

    def test_options_of_the_server(self) -> None:
        client = Client(make_app(), max_body_size=10)
        with ExpectLog("cycloneish.general", ".*Content-Length too long", level=logging.INFO):
            self.assertEqual(self.result(client.post("/echo", body=b"x" * 11)).code, 413)

    def test_a_large_body_and_a_large_response(self) -> None:
        self.assertEqual(
            len(self.result(self.client.post("/echo", body=b"x" * 300000)).json()["body"]), 300000
        )

    def test_nothing_of_the_reactor_is_needed(self) -> None:
        program = (
            "import sys; from cycloneish import web; from cycloneish.testing.client import SyncClient\n"
            "class H(web.RequestHandler):\n"
            "    def get(self): self.write('hi')\n"
            "assert SyncClient(web.Application([('/', H)])).get('/').body == b'hi'\n"
            "print('twisted.internet.reactor' in sys.modules)"
        )
        out = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=ENVIRONMENT
        )
        self.assertEqual(out.stdout.strip(), "False", out.stderr)


class CookieTests(ClientCase):
    def test_what_is_set_comes_back_where_it_belongs(self) -> None:
        response = self.result(self.client.get("/cookies?do=set"))
        self.assertEqual(response.cookies["plain"], "a,b")
        self.assertEqual(self.client.cookies["plain"], "a,b")
        sent = self.result(self.client.get("/cookies"))
        self.assertEqual(set(sent.json()), {"plain", "short", "signed"})
        self.assertEqual(sent.json()["plain"], "a,b")
        self.assertEqual(sent.headers["X-User"], "ann")
        self.assertIn("deep", self.result(self.client.get("/cookies/deep/er")).json())
        self.assertNotIn("deep", self.result(self.client.get("/cookies/deeper")).json())
        self.assertIn("tls", self.result(self.client.get("/cookies", protocol="https")).json())

    def test_what_is_cleared_is_gone(self) -> None:
        self.result(self.client.get("/cookies?do=set"))
        self.result(self.client.get("/cookies?do=clear"))
        self.assertNotIn("plain", self.client.cookies)
        self.assertNotIn("short", self.client.cookies)
        self.assertIn("signed", self.client.cookies)

    def test_signed_cookies(self) -> None:
        self.client.cookies.set_signed("signed", "bob")
        self.assertEqual(self.result(self.client.get("/cookies")).headers["X-User"], "bob")
        self.assertEqual(self.client.cookies.get_signed("signed"), b"bob")
        self.assertEqual(self.client.cookies.get_secure_cookie("signed"), b"bob")
        self.assertIsNone(self.client.cookies.get_signed("other"))
        self.client.cookies["signed"] = "forged"
        self.assertEqual(self.result(self.client.get("/cookies")).headers["X-User"], "")

    def test_signing_needs_a_secret(self) -> None:
        self.assertRaises(LookupError, Client(web.Application([])).cookies.set_signed, "a", "b")

    def test_the_jar_is_a_mapping(self) -> None:
        jar = self.client.cookies
        jar["a"] = "1"
        jar.set("b", b"2", path="/x")
        self.assertEqual(dict(jar), {"a": "1", "b": "2"})
        self.assertEqual((len(jar), repr(jar)), (2, "CookieJar({'a': '1', 'b': '2'})"))
        del jar["a"]
        self.assertRaises(KeyError, jar.__delitem__, "a")
        self.assertRaises(KeyError, jar.__getitem__, "a")

    def test_a_cookie_header_of_the_test_is_kept(self) -> None:
        self.client.cookies["a"] = "1"
        self.assertEqual(
            self.result(self.client.get("/cookies", headers={"Cookie": "b=2"})).json(), {"a": "1", "b": "2"}
        )

    def test_expiry_dates_and_odd_lines(self) -> None:
        jar = self.client.cookies
        for line in (
            "a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
            "b=1; expires=nonsense; path=/; HttpOnly",
            "nonsense",
            "=x",
            "c=1; path=relative; max-age=x",
            "d=1; max-age=-1",
        ):
            jar._take(line, "/some/path")
        self.assertEqual(dict(jar), {"b": "1", "c": "1"})
        self.assertIsNone(jar.header("/elsewhere", False) if jar.pop("b") else None)
        self.assertEqual(jar.header("/some/other", False), "c=1")


class XsrfTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.app = make_app(xsrf_cookies=True)

    def test_without_a_token_a_post_is_refused(self) -> None:
        with ExpectLog("cycloneish.general", ".*'_xsrf' argument missing"):
            self.assertEqual(self.successResultOf(Client(self.app).post("/form")).code, 403)

    def test_a_token_is_made_up(self) -> None:
        self.assertEqual(self.successResultOf(Client(self.app).post("/form", xsrf=True)).body, b"accepted")
        self.assertEqual(self.successResultOf(Client(self.app, xsrf=True).post("/form")).body, b"accepted")

    def test_the_servers_token_is_used(self) -> None:
        client = Client(self.app)
        page = self.successResultOf(client.get("/form"))
        self.assertEqual(client.xsrf_token(), client.cookies["_xsrf"])
        for form in ({"_xsrf": page.text}, {"_xsrf": client.xsrf_token()}):
            self.assertEqual(self.successResultOf(client.post("/form", form=form)).body, b"accepted")
        self.assertEqual(self.successResultOf(client.post("/form", xsrf=True)).body, b"accepted")

    def test_not_sent_where_it_is_not_needed(self) -> None:
        client = Client(make_app(), xsrf=True)
        self.assertNotIn("X-Xsrftoken", self.successResultOf(client.get("/echo")).json()["headers"])


class RedirectTests(ClientCase):
    def test_not_followed_unless_asked(self) -> None:
        response = self.result(self.client.get("/redirect/302"))
        self.assertEqual((response.code, response.headers["Location"]), (302, "/echo?redirected=1"))

    def test_followed_with_the_right_method_and_body(self) -> None:
        for code, method, body in (
            (301, "GET", ""),
            (302, "GET", ""),
            (303, "GET", ""),
            (307, "POST", "x"),
            (308, "POST", "x"),
        ):
            response = self.result(self.client.post(f"/redirect/{code}", body="x", follow_redirects=True))
            self.assertEqual((response.headers["X-Method"], response.json()["body"]), (method, body), code)
            self.assertEqual(response.effective_url, "http://testserver/echo?redirected=1")
            self.assertEqual([past.code for past in response.history], [code])

    def test_for_the_whole_client(self) -> None:
        client = Client(make_app(), follow_redirects=True)
        self.assertEqual(
            self.result(client.get("/redirect/302", params={"a": "b"})).json()["arguments"],
            {"redirected": ["1"]},
        )
        self.assertEqual(self.result(client.get("/redirect/302", follow_redirects=False)).code, 302)

    def test_a_loop_ends(self) -> None:
        failure = self.failureResultOf(self.client.get("/loop", follow_redirects=True), RuntimeError)
        self.assertIn("more than 10 redirects", str(failure.value))


class ErrorTests(ClientCase):
    def test_the_exception_is_known_though_the_answer_is_500(self) -> None:
        with ExpectLog("cycloneish.application", "Uncaught exception"):
            response = self.result(self.client.get("/broken"))
        self.assertEqual(response.code, 500)
        self.assertIsInstance(response.exception, ZeroDivisionError)

    def test_raised_when_asked_and_not_logged(self) -> None:
        with ExpectLog("cycloneish.application", "", required=False) as log:
            failure = self.failure(self.client.get("/broken", raise_errors=True), ZeroDivisionError)
            self.failure(self.client.post("/broken", raise_errors=True), LookupError)
            client = Client(make_app(), raise_errors=True)
            self.failure(client.get("/broken"), ZeroDivisionError)
        self.assertEqual(log.matched, 0)
        self.assertIn("broken on purpose", failure.getTraceback())
        self.assertIn("in get", failure.getTraceback())

    def test_an_http_error_is_a_response(self) -> None:
        self.assertEqual(self.result(self.client.put("/broken", raise_errors=True)).code, 418)

    def test_each_request_has_its_own(self) -> None:
        waiting = self.client.get("/waits", raise_errors=True)
        with ExpectLog("cycloneish.application", "Uncaught exception"):
            self.result(self.client.get("/broken"))
        Waits.waiting.callback("fine")
        self.assertIsNone(self.result(waiting).exception)

    def test_half_a_response(self) -> None:
        failure = self.failure(self.client.get("/half"), IncompleteResponseError)
        self.assertIn(
            "GET http://testserver/half: the connection closed with part of the response", str(failure.value)
        )
        self.assertEqual(failure.value.response.body, b"12345")


class ExchangeTests(ClientCase):
    def setUp(self) -> None:
        super().setUp()
        Waits.left, Waits.finished = [], []
        Streams.go, Streams.flushed = Deferred(), 0
        Upload.hold = None

    def test_a_handler_that_a_test_lets_go_on_by_hand(self) -> None:
        response = self.client.get("/waits")
        self.assertNoResult(response)
        Waits.waiting.callback("now")
        self.assertEqual(self.result(response).body, b"now")
        self.assertEqual(Waits.finished, ["finished"])

    def test_a_response_in_pieces(self) -> None:
        exchange = self.client.open("GET", "/streams")
        self.assertEqual(self.result(exchange.when_headers()).code, 200)
        self.assertEqual((exchange.code, exchange.done, exchange.closed), (200, False, False))
        self.assertIn("Transfer-Encoding", exchange.headers)
        self.assertEqual(self.result(exchange.read()), b"one")
        piece = exchange.read()
        self.assertNoResult(piece)
        self.assertRaises(RuntimeError, exchange.read)
        Streams.go.callback(None)
        self.assertEqual(self.result(piece), b"two")
        self.assertEqual(self.result(exchange.read()), b"")
        self.assertEqual(self.result(exchange.when_done()).body, b"onetwo")
        self.assertEqual(len(exchange.trailers), 0)
        self.assertIn("/streams", repr(exchange))

    def test_a_client_that_goes_away(self) -> None:
        exchange = self.client.open("GET", "/waits")
        response, headers = exchange.when_done(), exchange.when_headers()
        exchange.disconnect()
        self.assertEqual(Waits.left, ["left"])
        failure = self.failure(response, IncompleteResponseError)
        self.assertIsNone(failure.value.response)
        self.failure(headers, IncompleteResponseError)
        self.assertTrue(exchange.closed)
        Waits.waiting.callback("late")

    def test_cancelling_closes_the_connection(self) -> None:
        response = self.client.get("/waits")
        response.cancel()
        self.assertEqual(Waits.left, ["left"])
        self.failure(response, Exception)

    def test_closing_the_client_closes_what_is_open(self) -> None:
        with Client(make_app()) as client:
            response = client.get("/waits")
        self.failure(response, IncompleteResponseError)
        self.assertEqual(Waits.left, ["left"])

    def test_a_body_in_pieces(self) -> None:
        exchange = self.client.open("POST", "/upload", stream_body=True)
        exchange.write(b"abc")
        exchange.write(b"de")
        self.assertEqual(Upload.pieces, [b"abc", b"de"])
        self.assertFalse(exchange.done)
        exchange.finish()
        self.assertEqual(self.result(exchange.when_done()).body, b"5")

    def test_the_server_pauses_a_body_it_cannot_take(self) -> None:
        Upload.hold = Deferred()
        exchange = self.client.open("POST", "/upload", body=b"x" * 1_000_000)
        self.assertFalse(exchange.server_reads)
        self.assertLess(sum(map(len, Upload.pieces)), 200_000)
        hold, Upload.hold = Upload.hold, None
        hold.callback(None)
        self.client.flush()
        self.assertEqual(self.result(exchange.when_done()).body, b"1000000")

    def test_a_slow_reader_holds_up_the_handler(self) -> None:
        exchange = self.client.open("POST", "/streams", headers={"Content-Length": "1"})
        exchange.pause()
        exchange.write_raw(b"x")
        self.assertEqual(exchange.code, 0)
        self.assertLess(Streams.flushed, 20)
        exchange.resume()
        self.assertEqual(len(self.result(exchange.when_done()).body), 400_000)

    def test_expect_continue(self) -> None:
        exchange = self.client.open(
            "POST", "/echo", headers={"Expect": "100-continue", "Content-Length": "2"}, stream_body=False
        )
        self.assertEqual((exchange.informational, exchange.code), ([100], 0))
        exchange.write_raw(b"ok")
        self.assertEqual(self.result(exchange.when_done()).json()["body"], "ok")

    def test_a_client_that_shuts_its_side(self) -> None:
        exchange = self.client.open("GET", "/waits")
        exchange.half_close()
        Waits.waiting.callback("answered all the same")
        self.assertEqual(self.result(exchange.when_done()).body, b"answered all the same")

    def test_what_is_no_http_is_said_to_be_none(self) -> None:
        def answer(request: Any) -> None:
            request.connection.write(b"nonsense\r\n\r\n")
            request.connection.finish()

        failure = self.failure(Client(answer).get("/"), MalformedResponseError)
        self.assertIn("nonsense", str(failure.value))


class ReaderTests(SynchronousTestCase):
    def read(self, data: bytes, method: str = "GET", step: int = 1) -> ResponseReader:
        reader = ResponseReader(method)
        self.body = b"".join(reader.feed(data[at : at + step]) for at in range(0, len(data), step))
        return reader

    def test_lengths_chunks_and_the_end_of_the_connection(self) -> None:
        for step in (1, 7, 1000):
            reader = self.read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", step=step)
            self.assertEqual((self.body, reader.complete, reader.surplus), (b"abc", True, b"def"))
            reader = self.read(
                b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 7\r\n\r\nrest",
                step=step,
            )
            self.assertEqual((self.body, reader.complete, reader.surplus), (b"abcd", True, b"rest"))
            self.assertEqual((reader.informational, reader.trailers["X-Sum"]), ([103], "7"))
            reader = self.read(b"HTTP/1.0 200 OK\r\n\r\nabc", step=step)
            self.assertFalse(reader.complete)
            self.assertTrue(reader.connection_closed())
            self.assertEqual(self.body, b"abc")

    def test_responses_without_a_body(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
        self.assertTrue(self.read(head, "HEAD").complete)
        self.assertTrue(self.read(b"HTTP/1.1 204 No Content\r\n\r\n").complete)
        self.assertTrue(self.read(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").complete)
        self.assertTrue(self.read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").complete)
        self.assertFalse(self.read(head).connection_closed())

    def test_another_protocol_begins(self) -> None:
        reader = self.read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw")
        self.assertTrue(reader.upgraded)
        self.assertEqual((self.body, reader.complete), (b"raw", False))

    def test_malformed(self) -> None:
        for data in (
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ):
            self.assertRaises(MalformedResponseError, self.read, data)


class WaitingTests(TestCase):
    """Under a running reactor."""

    def setUp(self) -> None:
        self.client = Client(make_app())
        let_go(self)
        self.addCleanup(self.client.close)

    @inlineCallbacks
    def test_with_yield(self) -> Any:
        response = yield self.client.get("/sleeps?for=0.01")
        self.assertEqual(response.body, b"slept")

    async def test_with_await(self) -> None:
        self.assertEqual((await self.client.get("/sleeps?for=0.01")).body, b"slept")

    async def test_the_handler_is_done_when_its_response_comes(self) -> None:
        response = self.client.get("/waits")
        Waits.finished = []
        await self.client.get("/sleeps?for=0")
        Waits.waiting.callback("now")
        await response
        self.assertEqual(Waits.finished, ["finished"])

    async def test_a_time_out_says_what_took_too_long(self) -> None:
        Waits.left = []
        with self.assertRaises(TimeoutError) as caught:
            await self.client.get("/waits", timeout=0.05)
        self.assertIn(
            "GET http://testserver/waits: the response was not complete after 0.05 s", str(caught.exception)
        )
        self.assertIn("not even its headers came", str(caught.exception))
        self.assertEqual(Waits.left, ["left"])
        Streams.go = Deferred()
        client = Client(make_app(), timeout=0.05)
        with self.assertRaises(TimeoutError) as caught:
            await client.get("/streams")
        self.assertIn("its headers came, its body did not end", str(caught.exception))

    async def test_redirects_and_errors(self) -> None:
        response = await self.client.get("/redirect/302", follow_redirects=True)
        self.assertEqual(response.code, 200)
        with self.assertRaises(LookupError):
            await self.client.post("/broken", raise_errors=True)

    async def test_the_synchronous_client_says_that_it_does_not_fit(self) -> None:
        from twisted.internet import reactor

        await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]
        client = SyncClient(make_app())
        self.assertEqual(client.get("/echo").code, 200)
        error = self.assertRaises(RuntimeError, client.get, "/sleeps?for=0")
        self.assertIn("use Client instead of SyncClient", str(error))
        client.close()
        await deferLater(reactor, 0.05, lambda: None)  # type: ignore[arg-type]


SYNC = """
import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from cycloneish.testing import SyncClient, wait_for
from tests.testing.test_client import make_app

@pytest.fixture
def client():
    with SyncClient(make_app(), timeout=0.5) as client:
        yield client

def test_methods(client):
    for method in ("get", "post", "put", "patch", "delete", "head", "options"):
        assert getattr(client, method)("/echo").headers["X-Method"] == method.upper()
    assert client.xsrf_token()

def test_it_waits_for_timers_and_threads(client):
    assert client.get("/sleeps?for=0.02").text == "slept"
    assert client.get("/sleeps?for=0.02").text == "slept"

def test_it_waits_no_longer_than_said(client):
    with pytest.raises(TimeoutError, match="not even its headers came"):
        client.get("/waits")
    with pytest.raises(TimeoutError, match="nothing came within 0.05 s"):
        wait_for(Deferred(), 0.05)

def test_failures_are_raised(client):
    with pytest.raises(ZeroDivisionError):
        client.get("/broken", raise_errors=True)
    with pytest.raises(LookupError):
        wait_for(fail(LookupError()))

def test_a_body_while_the_handler_waits(client):
    assert client.post("/upload", body=b"x" * 500000).text == "500000"
"""


class PytestTests(SynchronousTestCase):
    def test_under_pytest(self) -> None:
        path = os.path.join(self.mktemp() + "_test.py")
        with open(path, "w") as file:
            file.write(SYNC)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", path]
        out = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
        self.assertEqual(out.returncode, 0, out.stdout + out.stderr)
        self.assertIn("5 passed", out.stdout)


class PlainUnittestTests(unittest.TestCase):
    """What the standard library's test case can use."""

    def test_the_synchronous_client(self) -> None:
        with SyncClient(make_app()) as client:
            self.assertEqual(client.get("/echo").code, 200)

    def test_a_deferred_that_has_fired(self) -> None:
        self.assertEqual(wait_for(succeed(3)), 3)
