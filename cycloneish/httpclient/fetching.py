"""One fetch, from the request to its response: redirects, authentication, retries, time-outs on the way.

Made by ``SimpleAsyncHTTPClient`` for each request; it asks the pool for a connection and is the ``Exchange``
of it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

import cycloneish
from cycloneish.coroutines import is_awaitable
from cycloneish.httpclient.connecting import (
    Route,
    as_python_error,
    basic_credentials,
    proxy_of,
    source_address,
)
from cycloneish.httpclient.connection import ClientConnection, ConnectionEnded, Exchange, HeadTooLarge
from cycloneish.httpclient.digest import Challenge, best_challenge, digest_credentials
from cycloneish.httpclient.errors import HTTPStreamClosedError, HTTPTimeoutError, LargeHeadError
from cycloneish.httpclient.heads import Target, parse_url, request_head
from cycloneish.httpclient.redirects import REDIRECTS, redirected
from cycloneish.httpclient.request import _RequestProxy
from cycloneish.httpclient.response import HTTPResponse
from cycloneish.httpclient.retries import IDEMPOTENT
from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine
from cycloneish.log import app_log, gen_log
from cycloneish.util import GzipDecompressor

if TYPE_CHECKING:
    from cycloneish.httpclient.simple import SimpleAsyncHTTPClient

__all__ = ["Fetch"]

_USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PIECE: Final = 65536
#: Pieces inflated before other connections get their turn.
_BURST: Final = 16
_USER_AGENT: Final = f"cycloneish/{cycloneish.__version__}"


class _CallbackFailed(Exception):
    """A callback of the program raised; that has been logged."""


class Fetch(Exchange):
    """A request on its way.

    :param client: whose pool and settings are used.
    :param request: with the defaults of the client.
    :param callback: called once with the response, which may be an error.
    """

    def __init__(
        self, client: SimpleAsyncHTTPClient, request: _RequestProxy, callback: Callable[[HTTPResponse], None]
    ) -> None:
        self._client = client
        self._reactor = client.reactor
        self._original = request.request
        self._callback: Callable[[HTTPResponse], None] | None = callback
        self._queued = self._began = self._reactor.seconds()
        self._started_at = time.time()
        self._redirects = 0
        self._attempt = 1
        self._foreign = False
        self._streamed = False
        self._produced = False
        self._challenge: Challenge | None = None
        self._connection: ClientConnection | None = None
        self._connecting: Deferred[Any] | None = None
        self._pause: Any = None
        self._use(request)
        self._timer: Any = None

    def _use(self, request: _RequestProxy) -> None:
        """Make *request* the one that is sent next."""
        self._request = request
        self.times: dict[str, float] = {}
        self._target: Target | None = None

    # -- the queue of the client -------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The server of the request, for limits per host."""
        try:
            return parse_url(self._original.url).authority
        except ValueError:
            return ""

    def wait(self) -> None:
        """All connections are taken: wait for one, within the shorter of the time-outs."""
        request = self._request
        timeout = min(request.connect_timeout, request.request_timeout)
        timeout = timeout or request.connect_timeout or request.request_timeout
        if timeout:
            self._timer = self._reactor.callLater(timeout, self._timed_out, "in request queue")

    def start(self) -> None:
        """Begin; the fetch tells the client when it is over."""
        self._stop_timer()
        self._began = self._reactor.seconds()
        timeout = self._request.request_timeout
        if timeout:
            left = max(0.0, self._queued + timeout - self._began)
            self._timer = self._reactor.callLater(left, self._timed_out, "during request")
        self._send()

    # -- sending -----------------------------------------------------------------------------------

    def _send(self, fresh: bool = False) -> None:
        """Send the request over an idle connection, or over a new one."""
        try:
            route = self._prepare()
            connection = None if fresh else self._client.pool.idle_connection(route)
            if connection is not None:
                self._start_on(connection)
                return
            timeout = self._request.connect_timeout
            limit = self._request.request_timeout
            if limit:
                left = max(0.001, self._queued + limit - self._reactor.seconds())
                timeout = min(timeout, left) if timeout else left
            connecting = self._connecting = self._client.pool.connect(route, timeout)
        except Exception as error:
            self._fail(error)
            return
        connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, result: tuple[ClientConnection, dict[str, float]]) -> None:
        self._connecting = None
        connection, times = result
        if self._callback is None:
            connection.abort()
            return
        since = self._reactor.seconds() - self._began
        behind = max(0.0, since - max(times.values(), default=0.0))
        for stage, seconds in times.items():
            self.times[stage] = behind + seconds
        self._start_on(connection)

    def _not_connected(self, failure: Failure) -> None:
        if self._connecting is None:
            return  # let go of, for a reason that the program is told; Twisted's error for that is none
        self._connecting = None
        if self._callback is not None and not failure.check(CancelledError):
            self._try_again_or_fail(failure.value or ConnectionEnded(failure))

    def _start_on(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.times["pretransfer"] = self._reactor.seconds() - self._began
        if self.producer is not None:
            self._produced = True
        connection.start(self)

    def _prepare(self) -> Route:
        """Make head and body of the request, and say where it goes.

        :raises ValueError: something in the request is not acceptable.
        """
        request = self._request
        target = self._target = parse_url(request.url)
        method = self.method = request.method
        if not request.allow_nonstandard_methods:
            self._check_method(method, request)
        if request.prepare_curl_callback is not None:
            raise NotImplementedError("prepare_curl_callback is for curl, which this client does not use")
        proxy = proxy_of(request)
        try:
            headers = HTTPHeaders(request.request.headers)
        except HTTPInputError as error:
            raise ValueError(str(error)) from None
        self._complete(headers, request, target)
        path = target.path
        if proxy is not None and target.scheme == "http":
            path = f"http://{target.authority}{target.path}"
            if proxy.credentials:
                headers["Proxy-Authorization"] = proxy.credentials
        self.head = request_head(method, path, headers)
        context = None
        if target.scheme == "https":
            context = self._client.tls_context(request, self._foreign)
        self.max_body_size = self._client.max_body_size
        self._following = self._challenged = self._discards = False
        self._gzip: GzipDecompressor | None = None
        self._inflated = 0
        self._chunks: list[bytes] = []
        self._start_line: ResponseStartLine | None = None
        source = source_address(request.network_interface)
        return Route(
            target.scheme, target.host, target.port, context, proxy, source, request.allow_ipv6 is not False
        )

    def _check_method(self, method: str, request: Any) -> None:
        if method not in _USUAL_METHODS:
            raise KeyError(f"unknown method {method[:100]!r}; allow_nonstandard_methods=True sends it")
        present = request.body is not None or request.body_producer is not None
        expected = method in _WITH_BODY
        if present != expected:
            raise ValueError(
                f"Body must {'not ' if expected else ''}be None for method {method} "
                "(unless allow_nonstandard_methods is true)"
            )

    def _complete(self, headers: HTTPHeaders, request: Any, target: Target) -> None:
        """Add the header fields that the options of the request stand for."""
        if "Host" not in headers:
            headers["Host"] = target.authority
        if request.user_agent:
            headers["User-Agent"] = request.user_agent
        elif "User-Agent" not in headers:
            headers["User-Agent"] = _USER_AGENT
        self._authorize(headers, request, target)
        if request.decompress_response:
            headers["Accept-Encoding"] = "gzip"
        jar = self._client.cookies
        if jar is not None and "Cookie" not in headers:
            cookies = jar.header(target)
            if cookies is not None:
                headers["Cookie"] = cookies
        self.keep_alive = True
        connection = headers.get("Connection")
        if connection is not None and "close" in connection.lower():
            self.keep_alive = False
        self._frame(headers, request)

    def _frame(self, headers: HTTPHeaders, request: Any) -> None:
        """Say how the body is framed; one answer, whatever the program has put into the headers."""
        self.body = request.body
        self.producer = request.body_producer if self.body is None else None
        self.producer_length = None
        coding = headers.get("Transfer-Encoding")
        if coding is not None and (coding.lower() != "chunked" or self.producer is None):
            raise ValueError(
                "Transfer-Encoding is the client's to set: chunked, where there is a body_producer"
            )
        length = headers.get("Content-Length")
        if self.body is not None:
            headers["Content-Length"] = str(len(self.body))
        elif self.producer is None:
            if length not in (None, "0"):
                raise ValueError(f"Content-Length {length[:30]!r} without a body")
            if length is None and self.method in _WITH_BODY:
                headers["Content-Length"] = "0"
        elif length is None:
            headers["Transfer-Encoding"] = "chunked"
        elif not (length.isascii() and length.isdigit()) or coding is not None:
            raise ValueError(f"invalid Content-Length {length[:30]!r}")
        else:
            self.producer_length = int(length)
        if self.method == "POST" and "Content-Type" not in headers:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.expect_continue = bool(request.expect_100_continue)
        if self.expect_continue:
            headers["Expect"] = "100-continue"

    def _authorize(self, headers: HTTPHeaders, request: Any, target: Target) -> None:
        mode = request.auth_mode or "basic"
        username, password = self._credentials(request, target)
        if username is None:
            return
        if mode == "basic":
            headers["Authorization"] = basic_credentials(username, password)
        elif mode != "digest":
            raise ValueError(f"unsupported auth_mode {mode!r}: there are 'basic' and 'digest'")
        elif self._challenge is not None:
            headers["Authorization"] = digest_credentials(
                self._challenge, username, password, request.method, target.path
            )

    def _credentials(self, request: Any, target: Target) -> tuple[str | None, str]:
        if target.username is not None:
            return target.username, target.password or ""
        if request.auth_username:
            return request.auth_username, request.auth_password or ""
        return None, ""

    # -- the exchange ------------------------------------------------------------------------------

    def head_received(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        request, target = self._request, self._target
        assert target is not None
        self.times["starttransfer"] = self._reactor.seconds() - self._began
        self._start_line, self._headers = start_line, headers
        jar = self._client.cookies
        if jar is not None and "Set-Cookie" in headers:
            jar.update(target, headers.get_list("Set-Cookie"))
        code = start_line.code
        self._following = (
            code in REDIRECTS
            and bool(request.follow_redirects)
            and self._redirects < request.max_redirects
            and "Location" in headers
        )
        self._challenged = (
            code == 401 and request.auth_mode == "digest" and self._take_challenge(headers, target)
        )
        self._discards = self._following or self._challenged or self._to_be_retried(code)
        if self._discards:
            return
        if request.decompress_response and self.method != "HEAD" and code not in (204, 304):
            coding = headers.get("Content-Encoding", "").lower()
            if coding in ("gzip", "x-gzip"):
                self._gzip = GzipDecompressor()
                headers["X-Consumed-Content-Encoding"] = headers["Content-Encoding"]
                del headers["Content-Encoding"]
        if request.header_callback is not None:
            self._streamed = True
            self._call_back(request.header_callback, "{} {} {}\r\n".format(*start_line))
            for name, value in headers.get_all():
                self._call_back(request.header_callback, f"{name}: {value}\r\n")
            self._call_back(request.header_callback, "\r\n")

    def _take_challenge(self, headers: HTTPHeaders, target: Target) -> bool:
        """Whether a challenge has come that was not answered yet."""
        if self._credentials(self._request, target)[0] is None or self._produced:
            return False
        challenge = best_challenge(headers.get_list("WWW-Authenticate"))
        if challenge is None or (self._challenge is not None and not challenge.stale):
            return False
        if self._challenge is not None and self._challenge.nonce == challenge.nonce:
            return False
        self._challenge = challenge
        return True

    def _call_back(self, callback: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return callback(argument)
        except Exception:
            app_log.error("Uncaught exception in a callback of a fetch", exc_info=True)
            raise _CallbackFailed from None

    def data_received(self, data: bytes) -> Any:
        if self._discards:
            return None
        if self._gzip is None:
            return self._take(data)
        return self._pass_on(self._inflate(self._gzip, data))

    def _take(self, data: bytes) -> Any:
        callback = self._request.streaming_callback
        if callback is None:
            self._chunks.append(data)
            return None
        self._streamed = True
        result = self._call_back(callback, data)
        return self._guard(result) if result is not None and is_awaitable(result) else None

    async def _guard(self, result: Any) -> None:
        """Wait for an asynchronous callback; a failure of it is logged like that of a plain one."""
        try:
            await result
        except GeneratorExit:
            raise
        except BaseException:
            if self._callback is None:
                return  # cancelled with the fetch
            app_log.error("Uncaught exception in a callback of a fetch", exc_info=True)
            raise _CallbackFailed from None

    def _inflate(self, gzip: GzipDecompressor, data: bytes) -> Any:
        while data:
            try:
                piece = gzip.decompress(data, _PIECE)
            except zlib.error as error:
                raise HTTPInputError(f"invalid gzip data: {error}") from None
            data = gzip.unconsumed_tail
            if piece:
                self._inflated += len(piece)
                if self._inflated > self.max_body_size:
                    raise HTTPInputError("decompressed body too large")
                yield piece

    def _pass_on(self, pieces: Any) -> Any:
        """Pass pieces on until something has to be waited for, if only the turn of the other connections."""
        for count, piece in enumerate(pieces, 1):
            result = self._take(piece)
            if result is not None or count == _BURST:
                return self._pass_on_later(result, pieces)
        return None

    async def _pass_on_later(self, waiting: Any, pieces: Any) -> None:
        while True:
            if waiting is not None:
                await waiting
            else:
                await deferLater(self._reactor, 0)
            if self._callback is None:
                return
            waiting = None
            for count, piece in enumerate(pieces, 1):
                waiting = self._take(piece)
                if waiting is not None or count == _BURST:
                    break
            else:
                return

    def finished(self) -> None:
        self._connection = None
        if self._gzip is not None:
            try:
                self._gzip.flush()
            except zlib.error as error:
                self.failed(HTTPInputError(f"invalid gzip data: {error}"), False)
                return
        start_line = self._start_line
        assert start_line is not None
        if self._following:
            self._follow(start_line.code)
        elif self._challenged:
            self._send()
        elif self._discards:
            self._retry(self._headers)
        else:
            self._succeed(start_line)

    def _follow(self, code: int) -> None:
        assert self._target is not None
        request = self._request.request
        try:
            following = redirected(request, self._target, code, self._headers["Location"])
            if parse_url(following.url).origin != self._target.origin:
                self._foreign = True
                self._challenge = None
            if following.body_producer is not None:
                raise ValueError("the redirect asks for the body again, and a body_producer runs only once")
        except ValueError as error:
            self._fail(error)
            return
        self._redirects += 1
        self.times["redirect"] = self._reactor.seconds() - self._began
        redirect = self.times
        self._use(_RequestProxy(following, self._request.defaults))
        self.times["redirect"] = redirect["redirect"]
        self._send()

    def failed(self, error: BaseException, untouched: bool) -> None:
        self._connection = None
        if untouched and self.method in IDEMPOTENT and not self._produced:
            # The server closed an idle connection while the request was on its way (RFC 9112 section 9.3.1).
            self._send(fresh=True)
            return
        if isinstance(error, HeadTooLarge):
            gen_log.info("Unsatisfiable read, closing connection: %s", error)
            self._fail(LargeHeadError(str(error)))
        elif isinstance(error, HTTPInputError):
            where = "" if self._target is None else f" ({self._target.scheme}://{self._target.authority})"
            gen_log.info("Malformed HTTP message from %s: %s%s", None, error, where)
            self._fail(HTTPStreamClosedError(f"Malformed HTTP message: {error}"))
        elif isinstance(error, _CallbackFailed):
            self._fail(HTTPStreamClosedError("a callback of the fetch raised an exception, which was logged"))
        elif isinstance(error, ConnectionEnded):
            self._try_again_or_fail(as_python_error(error.reason.value or error))
        else:
            self._fail(error)

    # -- trying again ------------------------------------------------------------------------------

    def _may_retry(self) -> bool:
        retry = self._request.retry
        return (
            retry is not None
            and self._attempt < retry.attempts
            and self._request.method in retry.methods
            and not self._streamed
            and not self._produced
        )

    def _to_be_retried(self, code: int) -> bool:
        return self._request.retry is not None and code in self._request.retry.statuses and self._may_retry()

    def _try_again_or_fail(self, error: BaseException) -> None:
        if self._may_retry() and isinstance(error, OSError | HTTPStreamClosedError | HTTPTimeoutError):
            self._retry(None)
        else:
            self._fail(error)

    def _retry(self, headers: HTTPHeaders | None) -> None:
        pause = self._request.retry.pause(self._attempt, headers)
        self._attempt += 1
        self._pause = self._reactor.callLater(pause, self._send)

    # -- ending ------------------------------------------------------------------------------------

    def _succeed(self, start_line: ResponseStartLine) -> None:
        chunks = self._chunks
        times = self._time_info()
        self._end(
            HTTPResponse(
                self._original,
                start_line.code,
                headers=self._headers,
                buffer=BytesIO(chunks[0] if len(chunks) == 1 else b"".join(chunks)),
                effective_url=self._request.url,
                request_time=times["total"],
                time_info=times,
                reason=start_line.reason,
                start_time=self._started_at,
            )
        )

    def _fail(self, error: BaseException) -> None:
        if self._callback is not None:
            times = self._time_info()
            self._end(
                HTTPResponse(
                    self._original,
                    599,
                    error=error,
                    effective_url=self._request.url,
                    request_time=times["total"],
                    time_info=times,
                    start_time=self._started_at,
                )
            )

    def _time_info(self) -> dict[str, float]:
        times = self.times
        times["queue"] = self._began - self._queued
        times["total"] = self._reactor.seconds() - self._began
        return times

    def _timed_out(self, doing: str) -> None:
        self._timer = None
        self._let_go()
        self._fail(HTTPTimeoutError(f"Timeout {doing}"))

    def cancel(self) -> None:
        """Give up: the connection closes, and the callback is not called."""
        if self._callback is not None:
            self._callback = None
            self._stop_timer()
            self._let_go()
            self._client.fetch_ended(self)

    def _end(self, response: HTTPResponse) -> None:
        callback, self._callback = self._callback, None
        self._stop_timer()
        self._client.fetch_ended(self)
        if callback is not None:
            callback(response)

    def _let_go(self) -> None:
        """Release the connection, or what is under way to get one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if self._pause is not None and self._pause.active():
            self._pause.cancel()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
