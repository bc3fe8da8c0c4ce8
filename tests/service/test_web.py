"""The service's order of things, with a server on a real port and the reactor of the test."""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from cycloneish.service import WebService
from cycloneish.service.loading import NotAnApp
from cycloneish.service.web import START_TIMEOUT, CannotStart, address_of, turn_debug_on

ANY_PORT = "tcp:0:interface=127.0.0.1"


def say(request: HTTPServerRequest, text: bytes) -> None:
    headers = HTTPHeaders({"Content-Length": str(len(text)), "Connection": "close"})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, text)
    request.connection.finish()


class Recorder(Service):
    """A service that writes down when it is started and stopped."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.until: Deferred[None] = succeed(None)
        self.ready: Deferred[None] = succeed(None)

    def startService(self) -> Deferred[None]:  # type: ignore[override]
        super().startService()
        self.events.append("service started")
        return self.until

    def stopService(self) -> None:
        super().stopService()
        self.events.append("service stopped")

    def when_ready(self) -> Deferred[None]:
        return self.ready


class Client(Protocol):
    """Asks for ``/`` and collects the answer."""

    def __init__(self) -> None:
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.received)


def ask(port: int) -> Deferred[Client]:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    return endpoint.connect(Factory.forProtocol(Client))


class WebServiceTest(TestCase):
    def service(self, app: Any, **options: Any) -> WebService:
        options.setdefault("listen", [ANY_PORT])
        service = WebService(app, **options)
        self.addCleanup(service.stopService)
        return service

    def recorded(self, handler: Any = None) -> tuple[HTTPServer, list[str], Recorder]:
        events: list[str] = []

        def answer(request: HTTPServerRequest) -> None:
            events.append("request")
            (handler or (lambda request: say(request, b"hello")))(request)

        server = HTTPServer(answer)
        server.service = recorder = Recorder(events)  # type: ignore[attr-defined]
        answer.service = recorder  # type: ignore[attr-defined]
        return server, events, recorder

    @inlineCallbacks
    def test_answers_on_its_port(self) -> Any:
        server, _, _ = self.recorded()
        service = self.service(server)
        service.startService()
        yield service.started
        client = yield ask(service.ports[0].getHost().port)
        answer = yield client.done
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))
        self.assertTrue(answer.endswith(b"hello"))

    @inlineCallbacks
    def test_listens_on_every_endpoint(self) -> Any:
        path = self.mktemp()
        server, events, _ = self.recorded()
        service = self.service(server, listen=[ANY_PORT, f"unix:{path}", ANY_PORT])
        service.startService()
        yield service.started
        self.assertEqual(len(service.ports), 3)
        for port in (service.ports[0], service.ports[2]):
            client = yield ask(port.getHost().port)
            yield client.done
        self.assertEqual(events.count("request"), 2)

    @inlineCallbacks
    def test_app_service_starts_before_the_port_opens(self) -> Any:
        server, events, recorder = self.recorded()
        recorder.until = Deferred()
        service = self.service(server)
        service.startService()
        yield deferLater(reactor, 0.01)
        self.assertEqual(events, ["service started"])
        self.assertEqual(service.ports, [])
        recorder.until.callback(None)
        yield service.started
        self.assertEqual(len(service.ports), 1)

    @inlineCallbacks
    def test_a_part_that_says_when_it_is_ready_is_waited_for(self) -> Any:
        server, _, recorder = self.recorded()
        recorder.ready = Deferred()
        parts = MultiService()
        recorder.setServiceParent(parts)
        server.request_callback.service = parts  # type: ignore[union-attr]
        service = self.service(server)
        service.startService()
        self.assertNoResult(service.started)
        recorder.ready.callback(None)
        yield service.started
        self.assertEqual(len(service.ports), 1)

    @inlineCallbacks
    def test_app_service_stops_after_the_last_request(self) -> Any:
        waiting: list[HTTPServerRequest] = []
        server, events, _ = self.recorded(waiting.append)
        service = self.service(server)
        service.startService()
        yield service.started
        client = yield ask(service.ports[0].getHost().port)
        while not waiting:
            yield deferLater(reactor, 0.01)
        stopped = service.stopService()
        yield deferLater(reactor, 0.05)
        self.assertEqual(events, ["service started", "request"])
        say(waiting[0], b"just in time")
        answer = yield client.done
        yield stopped
        self.assertIn(b"just in time", answer)
        self.assertEqual(events, ["service started", "request", "service stopped"])

    @inlineCallbacks
    def test_the_port_is_closed_after_stopping(self) -> Any:
        server, _, _ = self.recorded()
        service = self.service(server)
        service.startService()
        yield service.started
        port = service.ports[0].getHost().port
        yield service.stopService()
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)

    @inlineCallbacks
    def test_a_factory_may_be_a_coroutine_function(self) -> Any:
        server, _, _ = self.recorded()

        async def make_app(greeting: str) -> HTTPServer:
            await deferLater(reactor, 0.01)
            self.assertEqual(greeting, "hello")
            return server

        service = self.service(make_app, factory_options={"greeting": "hello"})
        service.startService()
        self.assertEqual(service.ports, [])
        yield service.started
        self.assertIs(service.app, server)

    @inlineCallbacks
    def test_a_port_in_use_is_one_line_and_lets_go_of_what_was_started(self) -> Any:
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        server, events, _ = self.recorded()
        service = self.service(server, listen=[ANY_PORT, endpoint])
        service.startService()
        failure = yield self.assertFailure(service.started, CannotStart)
        self.assertEqual(str(failure), f"cannot listen on {endpoint}: Address already in use")
        self.assertEqual(events, ["service started", "service stopped"])
        self.assertEqual(service.ports, [])
        self.assertFalse(service.running)

    @inlineCallbacks
    def test_an_endpoint_that_is_none_is_one_line(self) -> Any:
        server, _, _ = self.recorded()
        service = self.service(server, listen=["carrier-pigeon:7"])
        service.startService()
        failure = yield self.assertFailure(service.started, CannotStart)
        self.assertIn("cannot listen on carrier-pigeon:7", str(failure))

    def test_a_failure_known_at_once_is_raised_where_asked_for(self) -> None:
        server, _, _ = self.recorded()
        service = self.service(server, listen=["carrier-pigeon:7"], raise_at_once=True)
        self.assertRaises(CannotStart, service.startService)

    @inlineCallbacks
    def test_a_factory_that_gives_no_application_fails(self) -> Any:
        service = self.service(lambda: "a string", name="here:make_app")
        service.startService()
        failure = yield self.assertFailure(service.started, NotAnApp)
        self.assertEqual(str(failure), "here:make_app gave 'a string', which is no Application")

    @inlineCallbacks
    def test_a_factory_that_raises_fails_with_its_error(self) -> Any:
        def make_app() -> None:
            raise ZeroDivisionError("as it was")

        service = self.service(make_app)
        service.startService()
        failure = yield self.assertFailure(service.started, ZeroDivisionError)
        self.assertEqual(str(failure), "as it was")

    @inlineCallbacks
    def test_xheaders_for_a_server_made_elsewhere_is_refused(self) -> Any:
        server, _, _ = self.recorded()
        service = self.service(server, xheaders=True)
        service.startService()
        failure = yield self.assertFailure(service.started, CannotStart)
        self.assertIn("xheaders=True", str(failure))

    @inlineCallbacks
    def test_stopping_while_it_starts_cancels_the_start(self) -> Any:
        cancelled = []
        service = self.service(lambda: Deferred(lambda deferred: cancelled.append(deferred)))
        service.startService()
        started = service.started
        yield service.stopService()
        self.assertEqual(len(cancelled), 1)
        yield self.assertFailure(started, Exception)

    @inlineCallbacks
    def test_stopping_while_it_starts_waits_for_app_service_to_stop(self) -> Any:
        server, events, recorder = self.recorded()
        recorder.until = Deferred()
        stopping: Deferred[None] = Deferred()
        recorder.stopService = lambda: stopping  # type: ignore[method-assign,assignment,return-value]
        service = self.service(server)
        service.startService()
        started = service.started
        self.assertEqual(events, ["service started"])
        stopped = service.stopService()
        again = service.stopService()
        self.assertNoResult(stopped)
        self.assertNoResult(again)
        stopping.callback(None)
        yield stopped
        yield again
        yield self.assertFailure(started, CancelledError)

    @inlineCallbacks
    def test_it_can_be_started_again(self) -> Any:
        events: list[str] = []

        def make_app() -> HTTPServer:
            events.append("made")
            return self.recorded()[0]

        service = self.service(make_app)
        for _ in range(2):
            service.startService()
            yield service.started
            self.assertEqual(len(service.ports), 1)
            yield service.stopService()
        self.assertEqual(events, ["made", "made"])

    @inlineCallbacks
    def test_a_service_that_fails_to_stop_is_logged(self) -> Any:
        server, _, recorder = self.recorded()
        recorder.stopService = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        service = self.service(server)
        service.startService()
        yield service.started
        with self.assertLogs("cycloneish.general", "ERROR") as logged:
            yield service.stopService()
        self.assertIn("failed while stopping app.service", logged.output[0])


class TimeTest(SynchronousTestCase):
    def test_a_factory_that_never_comes_back_is_given_up(self) -> None:
        clock = Clock()
        service = WebService(lambda: Deferred(), reactor=clock)
        service.startService()
        clock.advance(START_TIMEOUT + 1)
        self.assertEqual(self.failureResultOf(service.started).type.__name__, "TimeoutError")


class SettingsTest(SynchronousTestCase):
    def test_debug_keeps_what_the_application_set_itself(self) -> None:
        class App:
            settings = {"serve_traceback": False, "title": "mine"}

        turn_debug_on(App)
        self.assertEqual(
            App.settings,
            {
                "debug": True,
                "serve_traceback": False,
                "compiled_template_cache": False,
                "static_hash_cache": False,
                "title": "mine",
            },
        )

    def test_debug_leaves_what_has_no_settings(self) -> None:
        turn_debug_on(object())

    def test_addresses_are_what_a_person_types(self) -> None:
        class Port:
            def __init__(self, **host: Any) -> None:
                self.host = type("Host", (), host)()

            def getHost(self) -> Any:
                return self.host

        def shown(endpoint: str, **host: Any) -> str:
            return address_of(endpoint, Port(**host))  # type: ignore[arg-type]

        self.assertEqual(shown("tcp:80", host="127.0.0.1", port=80), "http://127.0.0.1:80")
        self.assertEqual(shown("tcp6:80", host="::1", port=80), "http://[::1]:80")
        self.assertEqual(shown("ssl:443", host="0.0.0.0", port=443), "https://0.0.0.0:443")
        self.assertEqual(shown("unix:x", name=b"/run/x.sock"), "unix:/run/x.sock")
