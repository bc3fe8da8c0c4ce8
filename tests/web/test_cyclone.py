"""What handlers and applications have from Cyclone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.http1 import HTTP1ServerConnection
from cycloneish.httpserver import HTTPRequest, HTTPServer
from cycloneish.httputil import HTTPHeaders, HTTPServerRequest
from cycloneish.testing import Client
from cycloneish.web import (
    Application,
    ChunkedTransferEncoding,
    ErrorHandler,
    RequestHandler,
    URLReverseError,
    URLSpec,
)


class Ask(SynchronousTestCase):
    def ask(self, app: Application, method: str = "GET", path: str = "/", **options: Any) -> Any:
        client = Client(app)
        self.addCleanup(client.close)
        return self.successResultOf(client.request(method, path, **options))


class HandlerTest(Ask):
    def test_default_answers_what_has_no_method(self) -> None:
        class Any_(RequestHandler):
            def get(self) -> None:
                self.write("got")

            def default(self, *args: str, **kwargs: str) -> None:
                self.write(f"{self.request.method} {args}")

        app = Application([(r"/(.*)", Any_)])
        app_get = Application([(r"/", Any_)])
        self.assertEqual(self.ask(app_get).text, "got")
        self.assertEqual(self.ask(app, "PATCH", "/x").text, "PATCH ('x',)")

    def test_without_default_it_is_405_with_the_methods_there_are(self) -> None:
        class Getter(RequestHandler):
            def get(self) -> None:
                pass

        response = self.ask(Application([("/", Getter)]), "PUT")
        self.assertEqual((response.code, response.headers["Allow"]), (405, "GET"))

    def test_lists_only_when_asked_for(self) -> None:
        class Lists(RequestHandler):
            serialize_lists = True

            def get(self) -> None:
                self.write([1, "</script>"])  # type: ignore[arg-type]

        class NoLists(Lists):
            serialize_lists = False

        response = self.ask(Application([("/", Lists)]))
        self.assertEqual(response.json(), [1, "</script>"])
        self.assertEqual(response.headers["Content-Type"], "application/json; charset=UTF-8")
        self.assertEqual(self.ask(Application([("/", NoLists)])).code, 500)

    def test_no_keep_alive(self) -> None:
        class Once(RequestHandler):
            no_keep_alive = True

            def get(self) -> None:
                self.write("once")

        self.assertEqual(self.ask(Application([("/", Once)])).headers["Connection"].lower(), "close")

    def test_the_name_of_the_xsrf_cookie_on_the_class(self) -> None:
        class Form(RequestHandler):
            xsrf_cookie_name = "_mine"

            def get(self) -> None:
                self.write(self.xsrf_token)

            def post(self) -> None:
                self.write("posted")

        client = Client(Application([("/", Form)], xsrf_cookies=True))
        self.addCleanup(client.close)
        token = self.successResultOf(client.get("/")).text
        self.assertIn("_mine", client.cookies)
        answer = self.successResultOf(client.post("/", form={"_xsrf": token}))
        self.assertEqual(answer.text, "posted")

    def test_async_callback(self) -> None:
        kept: list[Any] = []

        class Later(RequestHandler):
            def get(self) -> Deferred[None]:
                kept.append(self.async_callback(self.on_result, "first", word="kept"))
                self.assert_none = self.async_callback(None)
                return Deferred()

            def on_result(self, first: str, second: str, word: str) -> None:
                if second == "bad":
                    raise ValueError("bad")
                self.finish(f"{first} {second} {word}")

        client = Client(Application([("/", Later)]))
        self.addCleanup(client.close)
        for second, code in (("good", 200), ("bad", 500)):
            answer = client.get("/")
            kept.pop()(second)
            client.flush()
            self.assertEqual(self.successResultOf(answer).code, code)

    def test_clear_cookie_in_cyclones_order(self) -> None:
        class Clear(RequestHandler):
            def get(self) -> None:
                self.clear_cookie("a", "/there", "example.com")

        cookie = self.ask(Application([("/", Clear)])).headers["Set-Cookie"]
        self.assertIn("Path=/there", cookie)
        self.assertIn("Domain=example.com", cookie)

    def test_arguments_for_an_initialize_that_is_not_there(self) -> None:
        app = Application([("/", RequestHandler, {"db": 1})])
        self.assertEqual(self.ask(app).code, 500)


class ApplicationTest(Ask):
    def test_error_handler(self) -> None:
        class Lost(ErrorHandler):
            def write_error(self, status_code: int, **kwargs: Any) -> None:
                self.finish(f"lost: {status_code}")

        app = Application([], None, None, Lost)
        response = self.ask(app, path="/nowhere")
        self.assertEqual((response.code, response.text), (404, "lost: 404"))
        self.assertIs(Application().error_handler, ErrorHandler)

    def test_settings_are_attributes_too(self) -> None:
        app: Any = Application(motto="slow")
        self.assertEqual((app.settings.motto, app.settings["motto"]), ("slow", "slow"))

    def test_handlers_and_named_handlers(self) -> None:
        app = Application([URLSpec("/user/(?P<name>.*)", RequestHandler, name="user")])
        app.add_handlers("example.com", [("/", RequestHandler)])
        (host, routes), (any_host, others) = app.handlers
        self.assertTrue(host.match("example.com"))
        self.assertTrue(any_host.match("anything"))
        self.assertEqual((len(routes), len(others)), (1, 1))
        self.assertEqual(list(app.named_handlers), ["user"])
        self.assertIs(app.protocol, HTTP1ServerConnection)

    def test_urls_by_the_names_of_groups(self) -> None:
        app = Application([URLSpec(r"/(?P<year>\d+)/(?P<day>\d+)", handler_class=RequestHandler, name="day")])
        self.assertEqual(app.reverse_url("day", day=7, year=2026), "/2026/7")
        for kwargs in ({"day": 7}, {"day": 7, "month": 5}):
            self.assertRaises(URLReverseError, app.reverse_url, "day", **kwargs)
        self.assertRaises(ValueError, app.reverse_url, "day", 1)
        self.assertRaises(TypeError, URLSpec, "/")

    def test_chunked_transfer_encoding_changes_nothing(self) -> None:
        class Hello(RequestHandler):
            def get(self) -> None:
                self.write("hello")

        app = Application([("/", Hello)], transforms=[ChunkedTransferEncoding])
        response = self.ask(app)
        self.assertEqual((response.text, response.headers["Content-Length"]), ("hello", "5"))


class ServerTest(SynchronousTestCase):
    def test_a_request_made_by_hand(self) -> None:
        request = HTTPRequest("GET", "/x?y=1", "HTTP/1.1", HTTPHeaders(Host="h"), b"", "10.0.0.1", "https")
        self.assertEqual((request.remote_ip, request.full_url()), ("10.0.0.1", "https://h/x?y=1"))
        self.assertIsInstance(HTTPServerRequest("GET", "/"), HTTPRequest)
        self.assertNotIsInstance("GET", HTTPRequest)

    def test_names_of_tornados_server(self) -> None:
        server = HTTPServer(lambda request: None, max_body_size=7)
        self.assertEqual((server.max_buffer_size, server.conn_params.max_body_size), (7, 7))
        self.assertIs(HTTPServer.configured_class(), HTTPServer)
        self.assertIs(HTTPServer.configurable_base(), HTTPServer.configurable_default())
        self.assertRaises(NotImplementedError, HTTPServer.configure, None)
        self.assertRaises(NotImplementedError, server.handle_stream, None, None)
        server.initialize()

    def test_on_close_of_a_subclass(self) -> None:
        closed: list[object] = []

        class Server(HTTPServer):
            def on_close(self, server_conn: object) -> None:
                closed.append(server_conn)

        server = Server(Application())
        connection = server.buildProtocol(None)
        server.connection_lost(connection)
        self.assertEqual(closed, [connection])
