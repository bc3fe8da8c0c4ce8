"""An ``IAgent`` on the pool of a client: what treq, and whatever else speaks to Twisted's agents, runs on.

``AsyncHTTPClient().agent()`` makes one, ``AsyncHTTPClient().treq()`` treq's client with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse
from zope.interface import implementer

from cycloneish.httpclient.connecting import Route, as_python_error
from cycloneish.httpclient.connection import ClientConnection, ConnectionEnded, Exchange
from cycloneish.httpclient.errors import HTTPStreamClosedError
from cycloneish.httpclient.heads import parse_url, request_head
from cycloneish.httpclient.request import HTTPRequest, _RequestProxy
from cycloneish.httpclient.retries import IDEMPOTENT
from cycloneish.httputil import HTTPHeaders, HTTPInputError, ResponseStartLine

if TYPE_CHECKING:
    from cycloneish.httpclient.simple import SimpleAsyncHTTPClient

__all__ = ["Agent"]


@implementer(IConsumer)
class _Body:
    """Lets a producer of Twisted's write where a ``body_producer`` writes."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        written = self._write(data)
        if not written.called and self._producer is not None:
            self._producer.pauseProducing()
            written.addCallback(lambda _: self._producer and self._producer.resumeProducing())


@implementer(IResponse)
class AgentResponse:
    """A response of Twisted's kind, whose body waits for ``deliverBody``."""

    previousResponse: Any = None

    def __init__(self, exchange: _AgentExchange, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        major, minor = start_line.version.removeprefix("HTTP/").split(".")
        self.version = (b"HTTP", int(major), int(minor))
        self.code = start_line.code
        self.phrase = start_line.reason.encode("latin-1")
        self.headers = Headers()
        for name, value in headers.get_all():
            self.headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        length = headers.get("Content-Length")
        self.length: Any = UNKNOWN_LENGTH if length is None or not length.isdigit() else int(length)
        self.request: Any = exchange
        self._exchange = exchange

    def deliverBody(self, protocol: Any) -> None:
        self._exchange.deliver_to(protocol)

    def setPreviousResponse(self, response: Any) -> None:
        self.previousResponse = response


class _AgentExchange(Exchange):
    """One request of an agent."""

    def __init__(self, method: str, uri: str) -> None:
        self.method = method
        self.absoluteURI = uri.encode("ascii")
        self.connection: ClientConnection | None = None
        self.connecting: Deferred[Any] | None = None
        self.response: Deferred[Any] = Deferred(lambda _: self._abort())
        self._protocol: Any = None
        self._waiting: list[Deferred[None]] = []
        self._pieces: list[bytes] = []
        self._end: Failure | None = None
        self._answered = False
        self.again: Callable[[], None] | None = None

    def _abort(self) -> None:
        connecting, self.connecting = self.connecting, None
        if connecting is not None:
            connecting.cancel()
        if self.connection is not None:
            self.connection.abort()

    def head_received(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        self._answered = True
        self.response.callback(AgentResponse(self, start_line, headers))

    def data_received(self, data: bytes) -> Any:
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return None
        # Nobody has asked for the body yet: the server waits as well.
        self._pieces.append(data)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def finished(self) -> None:
        self._over(Failure(ResponseDone()))

    def failed(self, error: BaseException, untouched: bool) -> None:
        if untouched and self.again is not None:
            # The server had closed an idle connection (RFC 9112 section 9.3.1).
            self.again()
            return
        if isinstance(error, ConnectionEnded):
            error = as_python_error(error.reason.value or error)
        elif isinstance(error, HTTPInputError):
            error = HTTPStreamClosedError(f"Malformed HTTP message: {error}")
        if self._answered:
            self._over(Failure(error))
        else:
            self.response.errback(Failure(error))

    def _over(self, reason: Failure) -> None:
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
        else:
            self._end = reason

    def deliver_to(self, protocol: Any) -> None:
        """Hand the body over, what has come of it first."""
        self._protocol = protocol
        protocol.makeConnection(self.connection.transport if self.connection else None)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            protocol.dataReceived(piece)
        if self._end is not None:
            protocol.connectionLost(self._end)
        # With these the rest of the body comes, and its end.
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)


@implementer(IAgent)
class Agent:
    """Twisted's agent interface, on the connections of a client.

    :param client: whose pool, limits, resolver and TLS settings are used.  Its ``max_clients`` does not hold
        here: who uses an agent counts requests elsewhere.
    """

    def __init__(self, client: SimpleAsyncHTTPClient) -> None:
        self._client = client

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        """Send a request.

        :returns: fires with an ``IResponse`` when its head has come; the body comes with ``deliverBody``.
        """
        try:
            exchange, route = self._prepare(
                method.decode("ascii"), uri.decode("ascii"), headers, bodyProducer
            )
        except Exception:
            return fail()
        if exchange.method in IDEMPOTENT and bodyProducer is None:
            exchange.again = lambda: self._connect(exchange, route)
        connection = self._client.pool.idle_connection(route)
        if connection is None:
            self._connect(exchange, route)
        else:
            exchange.connection = connection
            connection.start(exchange)
        return exchange.response

    def _prepare(
        self, method: str, uri: str, given: Headers | None, producer: Any
    ) -> tuple[_AgentExchange, Route]:
        target = parse_url(uri)
        exchange = _AgentExchange(method, uri)
        headers = HTTPHeaders()
        for name, values in given.getAllRawHeaders() if given is not None else ():
            for value in values:
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        if "Host" not in headers:
            headers["Host"] = target.authority
        headers.pop("Transfer-Encoding", None)
        headers.pop("Content-Length", None)
        if producer is not None:
            exchange.producer = lambda write: producer.startProducing(_Body(write))
            if producer.length is UNKNOWN_LENGTH:
                headers["Transfer-Encoding"] = "chunked"
            else:
                exchange.producer_length = producer.length
                headers["Content-Length"] = str(producer.length)
        elif method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = "0"
        exchange.keep_alive = "close" not in headers.get("Connection", "").lower()
        exchange.max_body_size = self._client.max_body_size
        exchange.head = request_head(method, target.path, headers)
        context = None
        if target.scheme == "https":
            options = _RequestProxy(HTTPRequest(uri), self._client.defaults)
            context = self._client.tls_context(options, foreign=False)
        return exchange, Route(target.scheme, target.host, target.port, context)

    def _connect(self, exchange: _AgentExchange, route: Route) -> None:
        connecting = self._client.pool.connect(route, self._client.defaults.get("connect_timeout"))
        exchange.connecting = connecting

        def connected(result: tuple[ClientConnection, dict[str, float]]) -> None:
            exchange.connecting = None
            exchange.connection = result[0]
            if exchange.response.called:
                result[0].abort()
            else:
                result[0].start(exchange)

        def failed(failure: Failure) -> None:
            if exchange.connecting is None:
                return  # cancelled, of which who waits hears
            exchange.connecting = None
            if not exchange.response.called:
                exchange.response.errback(failure)

        connecting.addCallbacks(connected, failed)
