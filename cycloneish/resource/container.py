"""A resource of `twisted.web` inside an application of ours: `ResourceContainer`."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer
from twisted.internet.task import CooperativeTask, cooperate
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource

from cycloneish import httputil
from cycloneish.log import app_log
from cycloneish.web.mount import (
    HOP_BY_HOP,
    Mountable,
    MountedMessage,
    break_off,
    is_closed,
    log_access,
    transport_of,
)

__all__ = ["ResourceContainer", "body_length"]


class ResourceContainer(Mountable):
    """Serves a `twisted.web` resource, or a `twisted.web.server.Site`.

    ::

        Application([
            (r"/api/.*", ApiHandler), (r"/files(?:/.*)?", FallbackHandler, {"fallback":
            ResourceContainer(File("/srv"), prefix="/files")}), (r".*", FallbackHandler, {"fallback":
            ResourceContainer(old_site)}),
        ])

    Every request gets a real `twisted.web.server.Request` (the site's `requestFactory`), with all that
    belongs to it: `NOT_DONE_YET`, `write` and `finish`, `notifyFinish`, sessions, push and pull
    producers, which are paused while the client is slow. The body is in `request.content`, spooled to a
    temporary file from 100 kB on, as twisted.web does.

    *prefix* is the path under which the resource is mounted: the resource sees what comes after it, and in
    `request.prepath` the prefix.
    """

    def __init__(self, resource: IResource | server.Site, *, prefix: str = "") -> None:
        site = resource if isinstance(resource, server.Site) else server.Site(resource)
        for segment in reversed([part for part in prefix.split("/") if part]):
            parent = Resource()
            parent.putChild(segment.encode(), site.resource)
            site.resource = parent
        self.site = site

    def open_request(self, request: httputil.HTTPServerRequest) -> MountedMessage:
        """Take over *request*; see `Mountable`."""
        return _Channel(self.site, request)


class _Channel(MountedMessage):
    """What a `twisted.web` request takes for its connection: methods have the names it calls them by."""

    factory = None  # where twisted.web would look for its own access log

    def __init__(self, site: server.Site, request: httputil.HTTPServerRequest) -> None:
        self.site = site
        self.transport = self
        self._ours = request
        self._connection = cast("httputil.HTTPConnection", request.connection)
        self._producer: IPushProducer | IPullProducer | None = None
        self._pull: CooperativeTask[Iterator[None]] | None = None
        self._unsent = 0
        self._paused = False
        self._ended = False
        self._headers_written = False
        self._no_body = False
        self._status = 0
        self.answered = Deferred()
        self._connection.set_close_callback(self._client_gone)
        theirs = self._theirs = cast("Any", site.requestFactory)(self)
        for name, value in request.headers.get_all():
            theirs.requestHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
        theirs.parseCookies()
        theirs.gotLength(body_length(request.headers))

    # -- the request -------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if not self._ended:
            self._theirs.handleContentChunk(chunk)
        return None

    def finish(self) -> None:
        if not self._ended:
            ours = self._ours
            self._theirs.requestReceived(
                ours.method.encode("latin-1"), ours.uri.encode("latin-1"), ours.version.encode("latin-1")
            )

    def on_connection_close(self) -> None:
        self._client_gone()

    def _client_gone(self) -> None:
        if self._ended:
            return
        self._ended = True
        producer = self._producer
        self.unregisterProducer()
        if producer is not None:
            producer.stopProducing()
        self._theirs.connectionLost(Failure(ConnectionDone("the client closed the connection")))
        if not is_closed(self._connection):
            # It has shut its own side only. twisted.web makes no difference, so nothing is to come any more.
            break_off(self._connection)
        self.answered.callback(None)

    # -- what twisted.web asks about the connection ------------------------------------------------

    def getPeer(self) -> IAddress:
        # Behind a trusted proxy the client's address is not the transport's.
        peer = _ask(transport_of(self._connection), "getPeer")
        return _address(self._ours.remote_ip, getattr(peer, "port", 0))

    def getHost(self) -> IAddress:
        host: IAddress | None = _ask(transport_of(self._connection), "getHost")
        return host if host is not None else _address("127.0.0.1", 443 if self.isSecure() else 80)

    def isSecure(self) -> bool:
        return self._ours.protocol == "https"

    def loseConnection(self) -> None:
        # What has been written still goes out; then the client is gone, as far as the resource can tell.
        if not self._ended:
            stream = getattr(self._connection, "stream", None)
            if stream is not None:
                stream.close()
            else:
                self.abortConnection()

    def abortConnection(self) -> None:
        if not self._ended:
            break_off(self._connection)
            self._client_gone()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._theirs.setResponseCode(400)
        self._theirs.setHeader(b"Connection", b"close")
        self._theirs.finish()

    # -- the answer --------------------------------------------------------------------------------

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        # The engine frames the body: twisted.web shall neither announce chunks nor write them. It looks
        # at `chunked` only after this call.
        self._theirs.chunked = 0
        self._status = int(code)
        ours = httputil.HTTPHeaders()
        for name, values in headers.getAllRawHeaders():
            for value in values:
                ours.add(name.decode("latin-1"), value.decode("latin-1"))
        closing = ours.get("Connection", "").lower() == "close"
        for name_ in HOP_BY_HOP:
            if name_ in ours:
                del ours[name_]
        if closing:
            ours["Connection"] = "close"
        self._no_body = self._ours.method == "HEAD" or self._status in http.NO_BODY_CODES
        self._headers_written = True
        start_line = httputil.ResponseStartLine("HTTP/1.1", self._status, reason.decode("latin-1"))
        self._count(0, self._connection.write_headers(start_line, ours))

    def write(self, data: bytes) -> None:
        if data and not self._no_body and not self._ended:
            self._count(len(data), self._connection.write(data))

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def requestDone(self, _request: Any) -> None:
        self._ended = True
        self._connection.finish()
        log_access(self._status, self._ours)
        self.answered.callback(None)

    # -- back-pressure -----------------------------------------------------------------------------

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        if self._ended:
            producer.stopProducing()
            return
        self._producer = producer
        if not streaming:
            # One piece per turn of the reactor, as long as the client takes them.
            self._pull = cooperate(self._ask_for_more(producer))
        if self._unsent:
            self._pause()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._paused = False
        if self._pull is not None:
            pull, self._pull = self._pull, None
            try:
                pull.stop()
            except Exception as error:
                app_log.debug("pull producer had ended: %r", error)

    def _ask_for_more(self, producer: IPushProducer | IPullProducer) -> Iterator[None]:
        while self._producer is producer:
            try:
                producer.resumeProducing()
            except Exception:
                app_log.error("Uncaught exception in producer %r", producer, exc_info=True)
                self._pull = None  # it is this very iterator, which ends here
                self.abortConnection()
                return
            yield None

    def _count(self, length: int, taken: Deferred[None]) -> None:
        if taken.called:
            return
        self._unsent += 1
        self._pause()
        taken.addBoth(self._taken)

    def _taken(self, _result: object) -> None:
        self._unsent -= 1
        if self._unsent == 0 and self._paused and self._producer is not None:
            self._paused = False
            if self._pull is not None:
                self._pull.resume()
            else:
                self._producer.resumeProducing()

    def _pause(self) -> None:
        if self._producer is None or self._paused:
            return
        self._paused = True
        if self._pull is not None:
            self._pull.pause()
        else:
            cast("IPushProducer", self._producer).pauseProducing()


def body_length(headers: httputil.HTTPHeaders) -> int | None:
    """The length that is announced; None when it is not known."""
    if "Transfer-Encoding" in headers or "X-Consumed-Content-Encoding" in headers:
        return None
    length = headers.get("Content-Length", "0")
    return int(length) if length.isascii() and length.isdigit() else None


def _address(host: str | None, port: int) -> IAddress:
    host = host or "127.0.0.1"
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


def _ask(transport: Any, method: str) -> Any:
    get_address = getattr(transport, method, None)
    return get_address() if get_address is not None else None
