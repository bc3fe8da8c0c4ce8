"""Cyclone's test kit: a test case that makes the application, and a client that returns its handlers.

For tests written for Cyclone; new ones use :class:`cycloneish.testing.Client`, which this is made of.
"""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any, cast
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cycloneish.httputil import HTTPHeaders
from cycloneish.signing import decode_signed_value
from cycloneish.testing.client import Client as MemoryClient
from cycloneish.testing.response import HTTPResponse
from cycloneish.web import Application, RequestHandler

__all__ = ["Client", "CycloneTestCase", "DecodingSimpleCookie"]

_QUERY_METHODS = ("GET", "HEAD", "OPTIONS", "DELETE")


class DecodingSimpleCookie(SimpleCookie):
    """Cookies, plain and signed.

    :param app: whose ``cookie_secret`` signs them.
    """

    def __init__(self, app: Application, *args: Any, **kwargs: Any) -> None:
        self.app = app
        super().__init__(*args, **kwargs)

    def get_secure_cookie(
        self, name: str, value: str | bytes | None = None, max_age_days: float = 31
    ) -> bytes | None:
        """The verified value of a signed cookie, or None.

        :param value: in place of that of the cookie *name*.
        """
        if value is None and name in self:
            value = self[name].value
        return decode_signed_value(self.app.settings["cookie_secret"], name, value, max_age_days=max_age_days)


class Client:
    """Sends requests to an application in memory and keeps its cookies.

    Each method gives a Deferred of the handler that answered, with ``content`` (the body, bytes) and
    ``headers`` besides what it has anyway; where no handler did, as for what another application serves, of
    the response.

    :param app: the application.

    :ivar cookies: a :class:`DecodingSimpleCookie`.

    Counterpart: ``cyclone.testing.client.Client``.
    """

    def __init__(self, app: Application) -> None:
        self.app = app
        self.cookies = DecodingSimpleCookie(app)
        self._client = MemoryClient(app)
        # The application logs each handler when it has answered.
        self._answered: list[RequestHandler] = []
        self._log_request = app.log_request
        app.log_request = self._answer  # type: ignore[method-assign]

    def get(
        self,
        uri: str,
        params: dict[str, Any] | None = None,
        version: str = "HTTP/1.0",
        headers: Any = None,
        body: str | bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> Deferred[Any]:
        """Send a GET request.

        :param uri: the path, perhaps with a query.
        :param params: the query's arguments; the body's for POST, PUT and PATCH without a *body*.
        :param headers: a dictionary.
        :param files: as :meth:`cycloneish.testing.Client.open` takes them.
        :param connection: not used, there is nothing to put in its place.
        """
        return self.request(
            "GET", uri, params, version, headers, body, remote_ip, protocol, host, files, connection
        )

    def head(
        self,
        uri: str,
        params: dict[str, Any] | None = None,
        version: str = "HTTP/1.0",
        headers: Any = None,
        body: str | bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> Deferred[Any]:
        """Send a HEAD request; see :meth:`get`."""
        return self.request(
            "HEAD", uri, params, version, headers, body, remote_ip, protocol, host, files, connection
        )

    def post(
        self,
        uri: str,
        params: dict[str, Any] | None = None,
        version: str = "HTTP/1.0",
        headers: Any = None,
        body: str | bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> Deferred[Any]:
        """Send a POST request; see :meth:`get`."""
        return self.request(
            "POST", uri, params, version, headers, body, remote_ip, protocol, host, files, connection
        )

    def put(
        self,
        uri: str,
        params: dict[str, Any] | None = None,
        version: str = "HTTP/1.0",
        headers: Any = None,
        body: str | bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> Deferred[Any]:
        """Send a PUT request; see :meth:`get`."""
        return self.request(
            "PUT", uri, params, version, headers, body, remote_ip, protocol, host, files, connection
        )

    def delete(
        self,
        uri: str,
        params: dict[str, Any] | None = None,
        version: str = "HTTP/1.0",
        headers: Any = None,
        body: str | bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> Deferred[Any]:
        """Send a DELETE request; see :meth:`get`."""
        return self.request(
            "DELETE", uri, params, version, headers, body, remote_ip, protocol, host, files, connection
        )

    def request(self, method: str, uri: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Send a request; the arguments are those of :meth:`get`."""
        names = (
            "params",
            "version",
            "headers",
            "body",
            "remote_ip",
            "protocol",
            "host",
            "files",
            "connection",
        )
        options = {**dict(zip(names, args, strict=False)), **kwargs}
        options.pop("connection", None)
        params = options.pop("params", None)
        headers = HTTPHeaders(options.pop("headers", None) or {})
        if params and method in _QUERY_METHODS:
            uri += ("&" if "?" in uri else "?") + urlencode(params, doseq=True)
        elif params and not options.get("body"):
            if options.get("files"):
                options["form"] = params
            else:
                options["body"] = urlencode(params, doseq=True)
                headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        cookie = self.cookies.output(attrs=[], header="", sep=";").strip()
        if cookie:
            headers["Cookie"] = cookie
        self._client.cookies.clear()
        answered: Deferred[Any] = self._client.request(method, uri, headers=headers, **options)
        return answered.addCallback(self._finished, method, uri)

    def _answer(self, handler: RequestHandler) -> None:
        self._answered.append(handler)
        self._log_request(handler)

    def _finished(self, response: HTTPResponse, method: str, uri: str) -> Any:
        for line in response.headers.get_list("Set-Cookie"):
            self.cookies.load(line)
        answer: Any = response
        for handler in self._answered:
            if (handler.request.method, handler.request.uri) == (method, uri):
                answer = handler
                self._answered.remove(handler)
                break
        answer.content = response.body
        answer.headers = response.headers
        return answer


class CycloneTestCase(TestCase):
    """A test case of trial with a :class:`Client`.

    ::

        class HelloTests(CycloneTestCase):
            app_builder = staticmethod(make_app)

            @inlineCallbacks
            def test_hello(self):
                response = yield self.client.get("/")
                self.assertEqual(response.content, b"Hello")

    :param app_builder: a function that makes the application; the class attribute of this name is used where
        it is not given.
    :raises ValueError: there is neither, and the instance is to run a test.

    Counterpart: ``cyclone.testing.CycloneTestCase``.
    """

    client_impl: Any = Client
    app_builder: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        builder = kwargs.pop("app_builder", None) or self.app_builder
        # pytest looks at imported classes, this one among them, through an instance without a test.
        has_test = (args[0] if args else kwargs.get("methodName", "runTest")) != "runTest"
        if builder is None and has_test:
            raise ValueError(
                f"{type(self).__name__} needs an app_builder, a function that makes the application: "
                "as a class attribute or a keyword argument"
            )
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        if builder is not None:
            self._app = cast("Application", builder())
            self.client = self.client_impl(self._app)
