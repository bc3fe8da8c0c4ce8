"""The HTTP client behind ``AsyncHTTPTestCase.fetch``: real sockets, no extra to install.

It is a small layer on :class:`twisted.web.client.Agent` with the arguments and results of Tornado's
``AsyncHTTPClient.fetch``. Owned by :class:`~cycloneish.testing.AsyncHTTPTestCase`, which closes it.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from cycloneish import version
from cycloneish.escape import utf8
from cycloneish.httputil import HTTPHeaders
from cycloneish.testing.helpers import get_async_test_timeout
from cycloneish.testing.response import HeaderSource, HTTPRequest, HTTPResponse, make_headers

__all__ = ["FetchClient"]

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_METHODS = _WITH_BODY | {"GET", "HEAD", "DELETE", "OPTIONS"}


class FetchClient:
    """Fetches URLs.

    :param reactor: the global one by default.
    :param defaults: arguments of :meth:`fetch` for every request.
    :param validate_cert: whether certificates of servers are checked.
    """

    def __init__(
        self, reactor: Any = None, defaults: dict[str, Any] | None = None, validate_cert: bool = True
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self.defaults = defaults or {}
        self._pool = HTTPConnectionPool(reactor)
        # A request that is sent twice would make tests lie.
        self._pool.retryAutomatically = False
        policy = BrowserLikePolicyForHTTPS() if validate_cert else _UncheckedPolicy()
        self._agent = Agent(reactor, policy, connectTimeout=get_async_test_timeout(), pool=self._pool)
        self._under_way: set[Deferred[Any]] = set()

    def fetch(
        self, request: str | HTTPRequest, raise_error: bool = True, **options: Any
    ) -> Deferred[HTTPResponse]:
        """Send a request.

        :param request: the URL, or an :class:`~cycloneish.testing.HTTPRequest`.
        :param raise_error: fail with :exc:`~cycloneish.httpclient.errors.HTTPClientError` when the status is
            not 2xx or 304.
        :param options: *method*, *headers*, *body*, *follow_redirects* (True), *max_redirects* (5),
            *request_timeout* in seconds, *decompress_response* (True), *allow_nonstandard_methods* (False),
            *streaming_callback* (called with each piece of the body, which is then not kept),
            *header_callback* (called with each header line), *auth_username*, *auth_password*, *user_agent*.
        :returns: a Deferred of an :class:`~cycloneish.testing.HTTPResponse`. It fails with
            :exc:`TimeoutError` when the response is not complete in time, and with Twisted's errors when
            there is none.
        :raises KeyError: unknown method, without *allow_nonstandard_methods*.
        :raises ValueError: a body where the method has none, or none where it has one.

        Tornado: ``AsyncHTTPClient.fetch``.
        """
        try:
            fetching = _Fetch(self._agent, request, {**self.defaults, **options})
        except Exception:
            return fail()
        done = fetching.start()
        self._under_way.add(done)

        def finished(result: Any) -> Any:
            self._under_way.discard(done)
            return result

        def check(response: HTTPResponse) -> HTTPResponse:
            if raise_error:
                response.rethrow()
            return response

        timeout = fetching.timeout
        if not done.called and timeout:
            done.addTimeout(timeout, self._reactor, fetching.timed_out)
        return done.addBoth(finished).addCallback(check)

    def close(self) -> Deferred[None]:
        """Give up what is under way and close the connections; the Deferred fires when they are closed."""
        for deferred in list(self._under_way):
            deferred.addErrback(lambda _: None)
            deferred.cancel()
        closed: Deferred[None] = self._pool.closeCachedConnections().addCallback(lambda _: None)
        return closed


class _Fetch:
    """One call of :meth:`FetchClient.fetch`, its redirects included."""

    def __init__(self, agent: Agent, request: str | HTTPRequest, options: dict[str, Any]) -> None:
        self._agent = agent
        if isinstance(request, HTTPRequest):
            options = {"method": request.method, "headers": request.headers, "body": request.body, **options}
            request = request.url
        self._take_options(request, **options)

    def _take_options(
        self,
        url: str,
        method: str = "GET",
        headers: HeaderSource | None = None,
        body: bytes | str | None = None,
        follow_redirects: bool = True,
        max_redirects: int = 5,
        request_timeout: float | None = None,
        decompress_response: bool = True,
        allow_nonstandard_methods: bool = False,
        streaming_callback: Callable[[bytes], Any] | None = None,
        header_callback: Callable[[str], Any] | None = None,
        auth_username: str | None = None,
        auth_password: str | None = None,
        user_agent: str | None = None,
    ) -> None:
        content = utf8(body)
        if not allow_nonstandard_methods:
            if method not in _METHODS:
                raise KeyError(f"unknown method {method}")
            if method in _WITH_BODY and content is None:
                raise ValueError(f"Body must not be None for method {method} (or allow_nonstandard_methods)")
            if method not in _WITH_BODY and content is not None:
                raise ValueError(f"Body must be None for method {method} (or allow_nonstandard_methods)")
        sent = make_headers(headers)
        if content is not None and method == "POST":
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if auth_username is not None:
            credentials = base64.b64encode(f"{auth_username}:{auth_password or ''}".encode())
            sent["Authorization"] = f"Basic {credentials.decode()}"
        if decompress_response:
            sent.setdefault("Accept-Encoding", "gzip")
        sent.setdefault("User-Agent", user_agent or f"cycloneish/{version}")
        self.request = HTTPRequest(url, method, sent, content)
        self.timeout = get_async_test_timeout() if request_timeout is None else request_timeout
        self._current = self.request
        self._redirects_left = max_redirects if follow_redirects else 0
        self._decompress = decompress_response
        self._streaming_callback = streaming_callback
        self._header_callback = header_callback
        self._began = time.monotonic()
        self._start_time = time.time()
        self._stage = "no connection, or no headers of the response, yet"

    def start(self) -> Deferred[HTTPResponse]:
        """Send the current request."""
        request = self._current
        headers = Headers()
        for name, value in request.headers.get_all():
            headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        body = None if request.body is None else _BytesProducer(request.body)
        url = quote(request.url.partition("#")[0], safe="/?:@!$&'()*+,;=~%[]").encode("ascii")
        sending: Deferred[Any] = self._agent.request(request.method.encode("ascii"), url, headers, body)
        return sending.addCallback(self._headers_came)

    def timed_out(self, result: Any, seconds: float) -> Any:
        """Say what took too long."""
        if isinstance(result, Failure):
            raise TimeoutError(
                f"{self._current.method} {self._current.url} took more than {seconds:g} s: {self._stage}"
            ) from (None if result.check(CancelledError) else result.value)
        return result

    def _headers_came(self, answer: IResponse) -> Deferred[HTTPResponse]:
        self._stage = "the response has begun and not ended"
        headers = HTTPHeaders()
        for name, values in answer.headers.getAllRawHeaders():
            for value in values:
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        if answer.length and isinstance(answer.length, int):
            # The agent keeps what frames the message to itself.
            headers.setdefault("Content-Length", str(answer.length))
        redirect = self._redirect(answer.code, headers)
        callback = None if redirect is not None else self._streaming_callback
        if redirect is None and self._header_callback is not None:
            self._header_callback(f"HTTP/1.1 {answer.code} {answer.phrase.decode('latin-1')}\r\n")
            for name, value in headers.get_all():
                self._header_callback(f"{name}: {value}\r\n")
            self._header_callback("\r\n")
        collector = _Collector(callback, self._decompress and headers.get("Content-Encoding") == "gzip")
        if collector.inflating:
            headers["X-Consumed-Content-Encoding"] = headers.pop("Content-Encoding")
        answer.deliverBody(collector)

        def complete(body: bytes) -> HTTPResponse | Deferred[HTTPResponse]:
            if redirect is not None:
                self._current = redirect
                self._redirects_left -= 1
                return self.start()
            return HTTPResponse(
                self.request,
                answer.code,
                headers,
                BytesIO(body),
                effective_url=self._current.url,
                request_time=time.monotonic() - self._began,
                reason=answer.phrase.decode("latin-1"),
                start_time=self._start_time,
            )

        return collector.done.addCallback(complete)

    def _redirect(self, code: int, headers: HTTPHeaders) -> HTTPRequest | None:
        location = headers.get("Location")
        if not self._redirects_left or location is None or code not in (301, 302, 303, 307, 308):
            return None
        now = self._current
        following = HTTPRequest(urljoin(now.url, location), now.method, HTTPHeaders(now.headers), now.body)
        if urlsplit(now.url)[:2] != urlsplit(following.url)[:2]:
            for name in ("Authorization", "Cookie", "Host"):
                following.headers.pop(name, None)
        if now.method != "HEAD" and (code == 303 or (code in (301, 302) and now.method == "POST")):
            following.method, following.body = "GET", None
            for name in ("Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding"):
                following.headers.pop(name, None)
        return following


class _Collector(Protocol):
    """Gathers the body of one response."""

    def __init__(self, callback: Callable[[bytes], Any] | None, inflate: bool) -> None:
        self._callback = callback
        self.inflating = inflate
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS) if inflate else None
        self._pieces: list[bytes] = []
        self.done: Deferred[bytes] = Deferred(self._cancel)

    def dataReceived(self, data: bytes) -> None:
        if self._inflater is not None:
            data = self._inflater.decompress(data)
        if self._callback is None:
            self._pieces.append(data)
        elif data:
            self._callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _cancel(self, deferred: Deferred[bytes]) -> None:
        abort = getattr(self.transport, "abortConnection", None) or getattr(
            self.transport, "loseConnection", None
        )
        deferred.errback(Failure(ConnectionDone("the fetch was cancelled")))
        if abort is not None:
            abort()


@implementer(IBodyProducer)
class _BytesProducer:
    """A request body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """All was written at once."""

    def pauseProducing(self) -> None:
        """All was written at once."""

    def resumeProducing(self) -> None:
        """All was written at once."""


@implementer(IPolicyForHTTPS)
class _UncheckedPolicy:
    """TLS with whatever certificate the server has: that of a test is signed by itself."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return _UncheckedConnections(hostname)


@implementer(IOpenSSLClientConnectionCreator)
class _UncheckedConnections:
    def __init__(self, hostname: bytes) -> None:
        self._hostname = hostname

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        from OpenSSL.SSL import Connection
        from twisted.internet.ssl import CertificateOptions

        connection = Connection(CertificateOptions(verify=False).getContext(), None)
        connection.set_app_data(tlsProtocol)
        if not self._hostname.replace(b".", b"").isdigit():  # names only (RFC 6066 section 3)
            connection.set_tlsext_host_name(self._hostname)
        return connection
