"""A client for tests that needs no port: requests go through the real engine in memory.

:class:`Client` gives Deferreds, for trial; :class:`SyncClient` gives responses, for pytest and unittest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urljoin, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPHeaders
from cycloneish.testing.bodies import Fields, Files, make_body
from cycloneish.testing.cookies import CookieJar
from cycloneish.testing.exchange import Exchange, IncompleteResponseError, MemoryClock, running_reactor
from cycloneish.testing.helpers import get_async_test_timeout
from cycloneish.testing.response import HeaderSource, HTTPRequest, HTTPResponse, make_headers
from cycloneish.testing.spin import wait_for
from cycloneish.util import import_object

__all__ = ["Client", "SyncClient"]

_MAX_REDIRECTS = 10
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# What a URL may hold as it is; everything else is percent-encoded, a "%" only where it begins no escape.
_URL_CHARACTERS = "/?:@!$&'()*+,;=~%[]"
_LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


class Client:
    """Sends requests to an application without a socket.

    ::

        class HelloTests(TestCase):
            def setUp(self):
                self.client = Client(make_app())
                self.addCleanup(self.client.close)

            async def test_hello(self):
                response = await self.client.get("/", params={"name": "Ann"})
                self.assertEqual((response.code, response.text), (200, "Hello, Ann"))

    The engine, routing, handlers and cookies are the real ones, the network alone is missing. A handler that
    does not wait has answered when the method returns, so that a synchronous test can use
    ``self.successResultOf(client.get("/"))``.

    :param app: what :class:`~cycloneish.httpserver.HTTPServer` takes, or such a server.
    :param base_url: scheme and host of the requests.
    :param headers: sent with every request.
    :param follow_redirects: follow 301, 302, 303, 307 and 308 unless a request says otherwise.
    :param raise_errors: a request fails with what its handler raised and did not catch, instead of giving the
        response with status 500; the exception is then not logged.
    :param xsrf: send the XSRF token with every request that needs one.
    :param remote_ip: address that the requests come from.
    :param timeout: seconds a response may take; :func:`~cycloneish.testing.get_async_test_timeout` by
        default.
    :param server_options: arguments for :class:`~cycloneish.httpserver.HTTPServer`, such as
        ``max_body_size``.

    :ivar cookies: the :class:`~cycloneish.testing.CookieJar`.
    """

    def __init__(
        self,
        app: Any,
        *,
        base_url: str = "http://testserver",
        headers: HeaderSource | None = None,
        follow_redirects: bool = False,
        raise_errors: bool = False,
        xsrf: bool = False,
        remote_ip: str = "127.0.0.1",
        timeout: float | None = None,
        **server_options: Any,
    ) -> None:
        self.app = app
        self.base_url = base_url.rstrip("/")
        self.headers = make_headers(headers)
        self.follow_redirects = follow_redirects
        self.raise_errors = raise_errors
        self.xsrf = xsrf
        self.remote_ip = remote_ip
        self.timeout = timeout
        self._clock = MemoryClock()
        self._clock.wake = self._wake
        if isinstance(app, HTTPServer):
            self.server = app
            self._settings = getattr(app.request_callback, "settings", {})
        else:
            self.server = HTTPServer(app, reactor=self._clock, **server_options)
            self._settings = getattr(app, "settings", {})
        self.cookies = CookieJar(self._settings)
        self._open: list[Exchange] = []

    # -- requests

    def get(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a GET request; the options are those of :meth:`request`."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a HEAD request; the options are those of :meth:`request`."""
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send an OPTIONS request; the options are those of :meth:`request`."""
        return self.request("OPTIONS", path, **options)

    def post(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a POST request; the options are those of :meth:`request`."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a PUT request; the options are those of :meth:`request`."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a PATCH request; the options are those of :meth:`request`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Deferred[HTTPResponse]:
        """Send a DELETE request; the options are those of :meth:`request`."""
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        follow_redirects: bool | None = None,
        raise_errors: bool | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Deferred[HTTPResponse]:
        """Send a request and wait for the whole response.

        :param method: any token.
        :param path: path with query string, or an absolute URL.
        :param follow_redirects: instead of the client's.
        :param raise_errors: instead of the client's.
        :param timeout: instead of the client's.
        :param options: *params*, *headers*, *body*, *json*, *form*, *files* and the others of :meth:`open`.
        :returns: a Deferred of an :class:`~cycloneish.testing.HTTPResponse`. It fails with
            :exc:`~cycloneish.testing.IncompleteResponseError` when the connection closes before the
            response is complete, :exc:`TimeoutError` when it takes too long, and, with *raise_errors*, what
            the handler raised.
        """
        if raise_errors is None:
            raise_errors = self.raise_errors
        if follow_redirects is None:
            follow_redirects = self.follow_redirects
        if timeout is None:
            timeout = get_async_test_timeout() if self.timeout is None else self.timeout
        exchange = self.open(method, path, _quiet=raise_errors, **options)
        done = _limited(exchange, timeout)
        if raise_errors:
            done.addBoth(_raise_exception, exchange)
        if follow_redirects:
            done.addCallback(self._redirected, raise_errors, timeout, options)
        return done

    def open(
        self,
        method: str,
        path: str,
        *,
        params: Fields | None = None,
        headers: HeaderSource | None = None,
        body: bytes | str | None = None,
        json: Any = ...,
        form: Fields | None = None,
        files: Files | None = None,
        stream_body: bool = False,
        xsrf: bool | None = None,
        version: str = "HTTP/1.1",
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        _quiet: bool = False,
    ) -> Exchange:
        """Send a request and return while it is under way.

        :param params: added to the query string; a value may be a list.
        :param headers: go before the client's own.
        :param body: sent as it is.
        :param json: sent as JSON.
        :param form: sent as ``application/x-www-form-urlencoded``, with *files* as ``multipart/form-data``.
        :param files: field name to contents, ``(name, contents)`` or ``(name, contents, content_type)``, or a
            list of these.
        :param stream_body: send the head only; :meth:`Exchange.write` and :meth:`Exchange.finish` send the
            body.
        :param xsrf: send the XSRF token, instead of the client's setting.
        :param version: ``"HTTP/1.0"`` or ``"HTTP/1.1"``.
        :param remote_ip: instead of the client's.
        :param protocol: ``"http"`` or ``"https"``, instead of the one in *base_url*.
        :param host: the Host header, instead of the one in *base_url*.
        :raises TypeError: when more than one kind of body is given.
        """
        self._clean_up()
        url = urlsplit(self.url(path, params))
        secure = (protocol or url.scheme) == "https"
        content, content_type = make_body(body, json, form, files)
        if stream_body and content is not None:
            raise TypeError("stream_body takes no body: write it to the exchange")
        sent = HTTPHeaders()
        sent["Host"] = host or url.netloc
        if content_type is not None:
            sent["Content-Type"] = content_type
        for source in (self.headers, make_headers(headers)):
            for name in source:
                sent.pop(name, None)
            for name, value in source.get_all():
                sent.add(name, value)
        if xsrf if xsrf is not None else self.xsrf and method not in _SAFE:
            sent.setdefault("X-Xsrftoken", self.xsrf_token())
        cookies = self.cookies.header(url.path, secure)
        if cookies is not None:
            sent["Cookie"] = f"{sent['Cookie']}; {cookies}" if "Cookie" in sent else cookies
        if stream_body:
            sent.setdefault("Transfer-Encoding", "chunked")
        elif content is not None or method in ("POST", "PUT", "PATCH"):
            sent.setdefault("Content-Length", str(len(content or b"")))
        target = url.path + (f"?{url.query}" if url.query else "")
        lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in sent.get_all())]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        full_url = f"{'https' if secure else 'http'}://{sent['Host']}{target}"
        exchange = Exchange(
            self.server,
            self._clock,
            HTTPRequest(full_url, method, sent, content),
            head + (content or b""),
            remote_ip=remote_ip or self.remote_ip,
            secure=secure,
            chunked=stream_body and "chunked" in sent.get("Transfer-Encoding", ""),
            quiet=_quiet,
        )
        self._open.append(exchange)

        def keep_cookies(response: HTTPResponse) -> None:
            self.cookies.extract(response.headers, url.path)

        exchange.when_headers().addCallbacks(keep_cookies, lambda _: None)
        return exchange

    def websocket(self, path: str, **options: Any) -> Deferred[Any]:
        """Open a WebSocket in memory.

        :param options: *headers*, *params* and the others of :meth:`open` that make sense here; and
            *subprotocols*, *compression_options* and *on_message_callback* of
            :func:`~cycloneish.websocket.websocket_connect`.
        :returns: a Deferred of a :class:`~cycloneish.websocket.WebSocketClientConnection`, which fails as
            that function's does.
        """
        # By name: what is tested without WebSockets does not load them.
        connect = import_object("cycloneish.websocket.memory.connect_in_memory")
        return connect(self, path, **options)  # type: ignore[no-any-return]

    # -- helpers

    def url(self, path: str, params: Fields | None = None) -> str:
        """The absolute URL of *path*, percent-encoded where needed, with *params* added to its query."""
        if not path.lower().startswith(("http://", "https://")):
            path = self.base_url + (path if path.startswith("/") else f"/{path}")
        path = quote(_LONE_PERCENT.sub("%25", path.partition("#")[0]), safe=_URL_CHARACTERS)
        if params:
            pairs = params.items() if isinstance(params, Mapping) else list(params)
            path += ("&" if "?" in path else "?") + urlencode(list(pairs), doseq=True)
        parts = urlsplit(path)
        return path if parts.path else parts._replace(path="/").geturl()

    def xsrf_token(self) -> str:
        """The XSRF token, for the argument ``_xsrf`` or the header ``X-XSRFToken``.

        It is the one of the cookie; where the server has not set any, one is made up and put into the jar.
        """
        name = self._settings.get("xsrf_cookie_name", "_xsrf")
        if name not in self.cookies:
            self.cookies[name] = "5e55104e" * 4
        return self.cookies[name]

    def flush(self) -> None:
        """Let all connections get what is due.

        Needed only where a synchronous test makes handlers go on by hand.
        """
        for exchange in list(self._open):
            exchange._pump()
        self._clean_up()

    def close(self) -> None:
        """Close all connections; what is under way is lost."""
        exchanges, self._open = self._open, []
        for exchange in exchanges:
            exchange.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _clean_up(self) -> None:
        for exchange in self._open:
            if exchange.done:
                exchange._pump()
        self._open = [exchange for exchange in self._open if not exchange.closed]

    def _wake(self) -> None:
        reactor = running_reactor()
        if reactor is not None and not any(exchange._pumping for exchange in self._open):
            reactor.callLater(0, self.flush)

    def _redirected(
        self, response: HTTPResponse, raise_errors: bool, timeout: float, options: dict[str, Any]
    ) -> HTTPResponse | Deferred[HTTPResponse]:
        location = response.headers.get("Location")
        if location is None or response.code not in (301, 302, 303, 307, 308):
            return response
        if len(response.history) >= _MAX_REDIRECTS:
            raise RuntimeError(f"more than {_MAX_REDIRECTS} redirects, the last one to {location}")
        method = response.request.method
        options = {name: value for name, value in options.items() if name != "params"}
        if method != "HEAD" and (response.code == 303 or (response.code in (301, 302) and method == "POST")):
            method = "GET"
            for name in ("body", "json", "form", "files", "stream_body"):
                options.pop(name, None)
        target = urljoin(response.request.url, location)
        if urlsplit(target).netloc != urlsplit(response.request.url).netloc:
            options.pop("host", None)
        options.pop("protocol", None)
        following = self.request(
            method, target, follow_redirects=False, raise_errors=raise_errors, timeout=timeout, **options
        )

        def remember(next_response: HTTPResponse) -> HTTPResponse:
            next_response.history = [*response.history, response]
            return next_response

        following.addCallback(remember)
        following.addCallback(self._redirected, raise_errors, timeout, options)
        return following


def _limited(exchange: Exchange, timeout: float) -> Deferred[HTTPResponse]:
    """The response, or a :exc:`TimeoutError` that says what took too long."""
    done = exchange.when_done()
    if done.called:
        return done
    from twisted.internet import reactor

    def timed_out(result: Any, seconds: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError, IncompleteResponseError):
            progress = (
                "its headers came, its body did not end" if exchange.code else "not even its headers came"
            )
            raise TimeoutError(
                f"{exchange.request.method} {exchange.request.url}: "
                f"the response was not complete after {seconds:g} s; {progress}"
            )
        return result

    return done.addTimeout(timeout, reactor, timed_out)


def _raise_exception(result: Any, exchange: Exchange) -> Any:
    return result if exchange.exception is None else Failure(exchange.exception)


class SyncClient:
    """A :class:`Client` whose methods return the response itself, for pytest and unittest.

    ::

        @pytest.fixture
        def client():
            with SyncClient(make_app()) as client:
                yield client

        def test_hello(client):
            assert client.get("/").text == "Hello"

    A handler that waits is waited for by turning the reactor, which must not run: under trial use
    :class:`Client`.

    :param options: those of :class:`Client`.

    :ivar client: the :class:`Client` underneath.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        self.client = Client(app, **options)
        self.cookies = self.client.cookies

    def request(self, method: str, path: str, **options: Any) -> HTTPResponse:
        """As :meth:`Client.request`, but returns the response, or raises."""
        timeout = options.get("timeout") or self.client.timeout or get_async_test_timeout()
        # The time-out of the request itself says more, so it is left to come first.
        done = self.client.request(method, path, **options)
        response = wait_for(done, timeout + 1, each_turn=self.client.flush)
        self.client.flush()
        return response

    def get(self, path: str, **options: Any) -> HTTPResponse:
        """Send a GET request; the options are those of :meth:`Client.request`."""
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> HTTPResponse:
        """Send a HEAD request."""
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Any) -> HTTPResponse:
        """Send an OPTIONS request."""
        return self.request("OPTIONS", path, **options)

    def post(self, path: str, **options: Any) -> HTTPResponse:
        """Send a POST request."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> HTTPResponse:
        """Send a PUT request."""
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> HTTPResponse:
        """Send a PATCH request."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> HTTPResponse:
        """Send a DELETE request."""
        return self.request("DELETE", path, **options)

    def xsrf_token(self) -> str:
        """See :meth:`Client.xsrf_token`."""
        return self.client.xsrf_token()

    def close(self) -> None:
        """See :meth:`Client.close`."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
