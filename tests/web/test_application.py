"""Routes, settings, logging, and the application as a Twisted factory."""

from __future__ import annotations

import types
from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPMessageDelegate, HTTPServerRequest
from cycloneish.routing import HostMatches, Matcher, PathMatches, Router, Rule, RuleRouter, URLSpec
from cycloneish.web import Application, RequestHandler
from cycloneish.web import application as module
from tests.web.fake import Exchange, FakeConnection, Logs, fetch


class Name(RequestHandler):
    def initialize(self, name: str = "") -> None:
        self.name = name

    def get(self, *args: str, **kwargs: str) -> None:
        self.write(" ".join([self.name, *args, *kwargs.values()]))


def body(app: Application, path: str = "/", host: str = "example.com", **headers: str) -> str:
    with Logs():
        connection = fetch(app, path, headers={"Host": host, **headers})
    return connection.body.decode() if connection.code == 200 else str(connection.code)


class RouteTests(SynchronousTestCase):
    def test_order_arguments_and_names(self) -> None:
        app = Application(
            [
                ("/", Name, {"name": "root"}),
                (r"/a/(\d+)", Name, {"name": "first"}, "number"),
                (r"/a/(.*)", Name, {"name": "second"}),
                URLSpec(r"/n/(?P<x>\w+)", Name, {"name": "named"}, name="n"),
                ("/list.*", [("/list/1", Name, {"name": "nested"})]),
                (PathMatches("/m"), "tests.web.test_application.Name", {"name": "by name"}),
            ]
        )
        for _ in range(2):  # the second time from memory
            self.assertEqual(body(app), "root")
            self.assertEqual(body(app, "/a/1"), "first 1")
            self.assertEqual(body(app, "/a/x%20y"), "second x y")
            self.assertEqual(body(app, "/n/z"), "named z")
            self.assertEqual(body(app, "/list/1"), "nested")
            self.assertEqual(body(app, "/list/2"), "404")
            self.assertEqual(body(app, "/m"), "by name")
        self.assertEqual(app.reverse_url("number", 7), "/a/7")
        self.assertEqual(app.reverse_url("n", "ö/"), "/n/%C3%B6/")
        self.assertRaises(KeyError, app.reverse_url, "other")

    def test_hosts(self) -> None:
        app = Application([("/", Name, {"name": "any"})])
        app.add_handlers(r"www\.example\.com", [("/", Name, {"name": "www"})])
        app.add_handlers(r".*\.example\.com", [("/x", Name, {"name": "sub"})])
        for _ in range(2):
            self.assertEqual(body(app, host="www.example.com"), "www")
            self.assertEqual(body(app, host="WWW.example.com:8080"), "www")
            self.assertEqual(body(app, host="other.example.com"), "any")
            self.assertEqual(body(app, "/x", host="www.example.com"), "sub")
            self.assertEqual(body(app, "/x", host="example.com"), "404")

    def test_default_host(self) -> None:
        app = Application([], default_host="www.example.com")
        app.add_handlers(r"www\.example\.com", [("/", Name, {"name": "www"})])
        headers = {"X-Real-Ip": "192.0.2.1"}
        self.assertEqual(body(app, host="elsewhere.test"), "www")
        self.assertEqual(body(app, host="elsewhere.test", **headers), "404")
        app.default_host = "other.test"
        self.assertEqual(body(app, host="elsewhere.test"), "404")

    def test_hosts_in_the_constructor(self) -> None:
        app = Application([(HostMatches("a.test"), [("/", Name, {"name": "a"})])])
        self.assertEqual(body(app, host="a.test"), "a")
        self.assertEqual(body(app, host="b.test"), "404")

    def test_routes_may_change_while_serving(self) -> None:
        app = Application([("/", Name, {"name": "old"})])
        self.assertEqual(body(app), "old")
        app.wildcard_router.rules.insert(0, Rule(PathMatches("/"), Name, {"name": "new"}))
        self.assertEqual(body(app), "new")
        app.add_handlers(".*", [("/", Name, {"name": "host"})])
        self.assertEqual(body(app), "host")

    def test_memory_of_routes_is_bounded(self) -> None:
        self.patch(module, "_MAX_ROUTES", 8)
        app = Application([("/(.*)", Name)])
        for number in range(30):
            body(app, f"/{number}")
            self.assertLessEqual(len(app._routes), 8)
        before = len(app._routes)
        body(app, "/" + "x" * 300)
        self.assertEqual(len(app._routes), before)

    def test_404s_are_not_remembered(self) -> None:
        app = Application([("/", Name)])
        for number in range(30):
            self.assertEqual(body(app, f"/{number}"), "404")
        self.assertEqual(app._routes, {})

    def test_matchers_that_look_elsewhere_are_asked_every_time(self) -> None:
        class Ajax(Matcher):
            def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
                return {} if "X-Ajax" in request.headers else None

        app = Application([(Ajax(), Name, {"name": "ajax"}), ("/", Name, {"name": "page"})])
        for _ in range(2):
            self.assertEqual(body(app), "page")
            self.assertEqual(body(app, **{"X-Ajax": "1"}), "ajax")

    def test_other_targets(self) -> None:
        inner = Application([("/app", Name, {"name": "inner"})])

        class Own(Router):
            def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
                if request.path == "/own/no":
                    return None
                return app.get_handler_delegate(request, Name, {"name": "own"}, path_args=[b"\xc3\xa4"])

        def function(request: HTTPServerRequest, **kwargs: Any) -> None:
            from cycloneish.httputil import HTTPHeaders, ResponseStartLine

            assert request.connection is not None
            request.connection.write_headers(
                ResponseStartLine("", 200, "OK"), HTTPHeaders(), b"function " + request.body
            )
            request.connection.finish()

        app = Application([("/app", inner), ("/own.*", Own()), ("/function", function, {"x": 1})])
        self.assertEqual(body(app, "/app"), "inner")
        self.assertEqual(body(app, "/own"), "own ä")
        self.assertEqual(body(app, "/own/no"), "404")
        self.assertEqual(fetch(app, "/function", "POST", body=b"posted").body, b"function posted")
        self.assertEqual(app._routes, {})
        exchange = Exchange(app, "POST", "/function", {"Content-Length": "5"})
        exchange.delegate.on_connection_close()

    def test_application_inside_a_router(self) -> None:
        app = Application([("/in/(.*)", Name, {"name": "app"})])
        router = RuleRouter([("/in.*", app)])
        connection = FakeConnection()
        delegate = router.start_request(object(), connection)
        exchange = Exchange(app, "GET", "/in/x")
        delegate.headers_received(_start("GET", "/in/x"), exchange.head)
        delegate.finish()
        self.assertEqual(connection.body, b"app x")

    def test_default_handler(self) -> None:
        app = Application([("/", Name)], default_handler_class=Name, default_handler_args={"name": "default"})
        self.assertEqual(body(app, "/x"), "default")

    def test_overriding_the_search(self) -> None:
        class Own(Application):
            def get_handler_delegate(self, request: Any, target_class: Any, *args: Any, **kwargs: Any) -> Any:
                return super().get_handler_delegate(
                    request, Name, {"name": "instead of " + target_class.__name__}
                )

        self.assertEqual(body(Own([("/", RequestHandler)])), "instead of RequestHandler")

    def test_call_with_a_request(self) -> None:
        def function(request: HTTPServerRequest) -> None:
            seen.append(request.body)

        seen: list[bytes] = []
        app = Application([("/", Name, {"name": "called"}), ("/f", function)])
        connection = FakeConnection()
        app(HTTPServerRequest("GET", "/", connection=connection))
        self.assertEqual(connection.body, b"called")
        app(HTTPServerRequest("POST", "/f", connection=connection, body=b"x"))
        self.assertEqual(seen, [b"x"])


def _start(method: str, path: str) -> Any:
    from cycloneish.httputil import RequestStartLine

    return RequestStartLine(method, path, "HTTP/1.1")


class SettingTests(SynchronousTestCase):
    def test_debug_implies_others(self) -> None:
        app = Application(debug=True, autoreload=False)
        self.assertEqual(
            app.settings,
            {
                "debug": True,
                "autoreload": False,
                "compiled_template_cache": False,
                "static_hash_cache": False,
                "serve_traceback": True,
            },
        )
        self.assertEqual(body(Application([("/", Name)], debug=True)), "")

    def test_static_routes_come_first(self) -> None:
        directory = self.mktemp()
        __import__("os").mkdir(directory)
        for name in ("robots.txt", "a.txt"):
            with open(f"{directory}/{name}", "w") as file:
                file.write(name)
        arguments = {"default_filename": "a.txt"}
        app = Application(
            [(".*", Name)], static_path=directory, static_url_prefix="/s/", static_handler_args=arguments
        )
        self.assertEqual(body(app, "/robots.txt"), "robots.txt")
        self.assertEqual(body(app, "/s/a.txt"), "a.txt")
        self.assertEqual(body(app, "/s/"), "a.txt")
        self.assertEqual(body(app, "/static/a.txt"), "")
        self.assertEqual(arguments, {"default_filename": "a.txt"})

    def test_log_function(self) -> None:
        seen: list[int] = []
        fetch(Name, log_function=lambda handler: seen.append(handler.get_status()))
        self.assertEqual(seen, [200])

    def test_access_log(self) -> None:
        app = Application([("/([0-9]+)", Status)])
        with Logs("cycloneish.access") as logs:
            for code in (200, 404, 503):
                fetch(app, f"/{code}?x")
        self.assertRegex(
            logs.text,
            r"^INFO 200 GET /200\?x \(192.0.2.7\) \d+\.\d\dms\n"
            r"WARNING 404 GET /404\?x .*\nERROR 503 GET /503\?x .*$",
        )

    def test_ui_methods_and_modules_from_python_modules(self) -> None:
        from cycloneish.web import UIModule

        class Entry(UIModule):
            pass

        source = types.ModuleType("source")
        source.Entry = Entry  # type: ignore[attr-defined]
        source.helper = lambda handler: "x"  # type: ignore[attr-defined]
        source._hidden = source.helper  # type: ignore[attr-defined]
        source.number = 1  # type: ignore[attr-defined]
        app = Application(ui_methods=[source, {"other": lambda handler: "y"}], ui_modules=[source])
        self.assertEqual(set(app.ui_methods), {"helper", "other"})
        self.assertEqual(set(app.ui_modules), {"Entry", "linkify", "xsrf_form_html", "Template"})


class Status(RequestHandler):
    def get(self, code: str) -> None:
        self.set_status(int(code))


class FactoryTests(SynchronousTestCase):
    def test_is_a_factory(self) -> None:
        verifyObject(IProtocolFactory, Application())

    def test_serves_what_a_reactor_gives_it(self) -> None:
        app = Application(
            [("/", Name, {"name": "hello"})], xheaders=True, server_options={"reactor": MemoryReactorClock()}
        )
        app.doStart()
        app.doStart()
        transport = StringTransport()
        protocol = app.buildProtocol(transport.getPeer())
        assert protocol is not None
        assert app._server is not None
        self.assertTrue(app._server.xheaders)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"hello", transport.value())
        app.doStop()
        app.doStop()
        app.doStop()

    def test_builds_protocols_without_having_been_started(self) -> None:
        app = Application(server_options={"reactor": MemoryReactorClock()})
        self.assertIsNotNone(app.buildProtocol(StringTransport().getPeer()))

    def test_listen(self) -> None:
        reactor = MemoryReactorClock()
        server = Application().listen(8888, "127.0.0.1", backlog=5, reactor=reactor, xheaders=True)
        self.assertIsInstance(server, HTTPServer)
        port, factory, backlog, interface = reactor.tcpServers[0]
        self.assertEqual((port, factory, backlog, interface), (8888, server, 5, "127.0.0.1"))
        self.assertTrue(server.xheaders)

    def test_autoreload_begins_with_serving(self) -> None:
        started: list[str] = []
        self.patch(module.autoreload, "start", lambda: started.append("x"))
        app = Application(autoreload=True)
        self.assertEqual(started, [])
        app.listen(8888, reactor=MemoryReactorClock())
        self.assertEqual(started, ["x"])
