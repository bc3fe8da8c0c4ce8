"""Test cases for trial: one with clean-up, one with a server and a client, one with TLS.

Tests may return Deferreds, be ``inlineCallbacks``, ``async def`` or :func:`~cycloneish.testing.gen_test`;
pytest runs these classes as well, as it knows trial's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any
from unittest import TestResult

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cycloneish.coroutines import as_deferred, drive, is_awaitable
from cycloneish.httpclient.client import close_shared_clients
from cycloneish.httpserver import HTTPServer
from cycloneish.testing.fetching import FetchClient
from cycloneish.testing.helpers import bind_unused_port
from cycloneish.testing.leftovers import LeftoverWatch
from cycloneish.testing.response import HTTPResponse
from cycloneish.testing.waiting import WaitingMixin

__all__ = ["AsyncHTTPSTestCase", "AsyncHTTPTestCase", "AsyncTestCase"]


class AsyncTestCase(WaitingMixin, TestCase):
    """Trial's test case, with a check of what a test leaves behind that names who made it.

    ``async def`` tests may await Deferreds, and asyncio futures on the asyncio reactor. A test that is a
    generator without a decorator is an error, as nothing would ever run it; so is one that returns something
    that cannot be waited for.

    A test that leaves a delayed call, a port or a connection on the reactor fails with
    :exc:`~cycloneish.testing.LeftoverError`, which says what and where it was made.

    Tornado: ``tornado.testing.AsyncTestCase``; its ``wait`` gives a Deferred here, since a reactor cannot be
    run inside a test.
    """

    #: Set to False where a test leaves something on purpose; trial's own check stays.
    check_leftovers = True

    def __init__(self, methodName: str = "runTest") -> None:
        method = getattr(self, methodName, None)
        if method is not None:
            setattr(self, methodName, _runnable(method))
        super().__init__(methodName)  # type: ignore[no-untyped-call]

    def run(self, result: Any = None) -> Any:
        """Run the test; called by the runner.

        :param result: where to report; a new ``unittest.TestResult`` by default, which is returned.
        """
        own = result is None
        if own:
            result = TestResult()
        super().run(result)  # type: ignore[no-untyped-call]
        return result if own else None

    def setUp(self) -> Any:
        """Begin to watch the reactor."""
        super().setUp()
        if self.check_leftovers:
            from twisted.internet import reactor

            watch = LeftoverWatch(reactor)
            watch.start()
            tear_down = self.tearDown
            # Trial runs clean-ups before tearDown, so the check has to come behind the whole of that.
            self.tearDown = lambda: _then(maybeDeferred(tear_down), watch.check)  # type: ignore[method-assign]

    def tearDown(self) -> Any:
        """Nothing so far; call it from an override."""
        super().tearDown()


def _then(first: Deferred[Any], check: Callable[[], Deferred[None]]) -> Deferred[Any]:
    """Check whatever the outcome of *first*, whose failure goes before that of the check."""

    def failed(failure: Failure) -> Deferred[Any]:
        checked: Deferred[Any] = check()
        return checked.addBoth(lambda _: failure)

    return first.addCallbacks(lambda _: check(), failed)


def _runnable(method: Any) -> Any:
    @functools.wraps(method)
    def run() -> Any:
        if inspect.isgeneratorfunction(method):
            raise TypeError(
                f"{method.__qualname__} is a generator and would not run: "
                "it should be decorated with gen_test or inlineCallbacks"
            )
        result = method()
        if is_awaitable(result):
            return drive(result)
        if result is not None:
            raise ValueError(f"Return value from test method ignored: {result!r:.200}")
        return None

    return run


class AsyncHTTPTestCase(AsyncTestCase):
    """A test case with an HTTP server on a free port of 127.0.0.1, and a client.

    ::

        class HelloTests(AsyncHTTPTestCase):
            def get_app(self):
                return make_app()

            async def test_home_page(self):
                response = await self.fetch("/")
                self.assertEqual(response.code, 200)
                self.assertEqual(response.body, b"Hello")

            @inlineCallbacks
            def test_the_same_with_yield(self):
                response = yield self.fetch("/")
                self.assertEqual(response.code, 200)

    The server starts before each test and is closed after it, with all its connections. An application's
    ``service`` (a :class:`twisted.application.service.IService`) is started before and stopped after that.
    Where no socket is needed, :class:`~cycloneish.testing.Client` is quicker.

    Tornado: ``tornado.testing.AsyncHTTPTestCase``; ``fetch`` gives a Deferred here.
    """

    http_server: HTTPServer
    http_client: FetchClient
    _app: Any

    def setUp(self) -> Any:
        """Start the server. What it returns, if anything, is to be waited for: return it from an override."""
        super().setUp()
        self.http_client = self.get_http_client()
        app = self.get_app()
        if is_awaitable(app):
            return drive(app).addCallback(self._start)
        return self._start(app)

    def get_app(self) -> Any:
        """The application, or anything else that :class:`~cycloneish.httpserver.HTTPServer` serves, or a
        Deferred or coroutine of it. To be overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define get_app()")

    def get_http_server(self) -> HTTPServer:
        """The server of the application; asked before each test."""
        return HTTPServer(self._app, **self.get_httpserver_options())

    def get_httpserver_options(self) -> dict[str, Any]:
        """Further arguments for the server."""
        return {}

    def get_http_client(self) -> FetchClient:
        """The client that :meth:`fetch` uses; asked before each test."""
        return FetchClient()

    def get_http_port(self) -> int:
        """The port of the server."""
        return self._port

    def get_protocol(self) -> str:
        """``"http"`` or ``"https"``."""
        return "http"

    def get_url(self, path: str) -> str:
        """The absolute URL of *path* on the server."""
        return f"{self.get_protocol()}://127.0.0.1:{self.get_http_port()}{path}"

    def fetch(self, path: str, raise_error: bool = False, **kwargs: Any) -> Deferred[HTTPResponse]:
        """Fetch a URL.

        :param path: path with query string on the server of this test, or an absolute URL.
        :param raise_error: fail when the status is not 2xx or 304.
        :param kwargs: arguments of :meth:`FetchClient.fetch()
            <cycloneish.testing.FetchClient.fetch>`:
            *method*, *headers*, *body*, *follow_redirects* and others.
        :returns: a Deferred of an :class:`~cycloneish.testing.HTTPResponse`.
        """
        if not path.lower().startswith(("http://", "https://")):
            path = self.get_url(path)
        return self.http_client.fetch(path, raise_error=raise_error, **kwargs)

    def tearDown(self) -> Any:
        """Close the client, the server and its connections. Return what it returns from an override."""
        # The shared client too: a handler may have used it, and it keeps its connections.
        closing: list[Deferred[Any]] = [maybeDeferred(self.http_client.close), close_shared_clients()]
        server = getattr(self, "http_server", None)
        if server is not None:
            closing += [maybeDeferred(server.stop), maybeDeferred(server.close_all_connections)]
        closed: Deferred[Any] = DeferredList(closing, fireOnOneErrback=True, consumeErrors=True)
        closed.addCallback(lambda _: self._stop_service())
        closed.addBoth(self._forget)
        closed.addCallback(lambda _: super(AsyncHTTPTestCase, self).tearDown())
        return closed

    def _start(self, app: Any) -> Deferred[None] | None:
        self._app = app
        service: Any = getattr(app, "service", None)
        started = service.startService() if hasattr(service, "startService") else None
        if is_awaitable(started):
            return as_deferred(started).addCallback(lambda _: self._listen())
        self._listen()
        return None

    def _listen(self) -> None:
        self.http_server = self.get_http_server()
        sock, self._port = bind_unused_port()
        self.http_server.add_sockets([sock])

    def _stop_service(self) -> Any:
        service: Any = getattr(getattr(self, "_app", None), "service", None)
        return service.stopService() if hasattr(service, "stopService") else None

    def _forget(self, result: Any) -> Any:
        # Trial keeps every test case to the end of the run; the application need not stay as long.
        for name in ("http_server", "_app", "http_client"):
            self.__dict__.pop(name, None)
        return result


class AsyncHTTPSTestCase(AsyncHTTPTestCase):
    """The same over TLS, with a certificate that signs itself and a client that accepts it.

    Needs ``cycloneish[tls]``. Tornado: ``tornado.testing.AsyncHTTPSTestCase``.
    """

    def get_http_client(self) -> FetchClient:
        return FetchClient(validate_cert=False)

    def get_httpserver_options(self) -> dict[str, Any]:
        return {"ssl_options": self.get_ssl_options()}

    def get_ssl_options(self) -> dict[str, Any]:
        """``ssl_options`` of the server; the default is :meth:`default_ssl_options`."""
        return self.default_ssl_options()

    @staticmethod
    def default_ssl_options() -> dict[str, Any]:
        """``certfile`` and ``keyfile`` of a certificate that signs itself."""
        try:
            from cycloneish.testing.certificates import self_signed_certificate
        except ImportError as error:
            raise ImportError("tests of TLS need more libraries: pip install 'cycloneish[tls]'") from error
        certfile, keyfile = self_signed_certificate()
        return {"certfile": certfile, "keyfile": keyfile}

    def get_protocol(self) -> str:
        return "https"
