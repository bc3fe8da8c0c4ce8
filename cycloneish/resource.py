"""twisted.web and this framework in one process, each inside the other.

`to_resource` puts an `cycloneish.web.Application` into a `twisted.web` site; `ResourceContainer` puts a
`twisted.web` resource, or a whole site, behind a `cycloneish.web.FallbackHandler`. Programs that move
from one to the other use them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import CooperativeTask, cooperate
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from cycloneish import httputil
from cycloneish.coroutines import drive, is_awaitable
from cycloneish.http.response import WriteDeferred, response_head
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

__all__ = ["ApplicationResource", "ResourceContainer", "StreamingRequest", "to_resource"]

_CHUNK = 64 * 1024  # bytes of a spooled body handed on at a time
_MOST_DRAINED = 64 * 1024  # bytes of a body that are read behind an early answer, to keep the connection


# -- a resource of twisted.web inside an application of ours ---------------------------------------


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
        theirs.gotLength(_body_length(request.headers))

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


def _body_length(headers: httputil.HTTPHeaders) -> int | None:
    """The length that is announced; None when it is not known."""
    if "Transfer-Encoding" in headers:
        return None
    length = headers.get("Content-Length", "0")
    return int(length) if length.isascii() and length.isdigit() else None


def _address(host: str | None, port: int) -> IAddress:
    host = host or "127.0.0.1"
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


def _ask(transport: Any, method: str) -> Any:
    get_address = getattr(transport, method, None)
    return get_address() if get_address is not None else None


# -- an application of ours inside a site of twisted.web -------------------------------------------


def to_resource(
    application: httputil.HTTPServerConnectionDelegate, *, strip_prefix: bool = False
) -> ApplicationResource:
    """Return a `twisted.web` resource that is served by *application*.

    It can be the root of a site, where other resources may be put beside it with `putChild`, or a child
    of another resource::

        root = File("/srv/www")
        root.putChild(b"app", to_resource(Application([(r"/app/", MainHandler)])))
        reactor.listenTCP(8080, Site(root, requestFactory=StreamingRequest))

    The application sees the whole path, so that the links it makes are right; with *strip_prefix* it
    sees the path below the resource.

    Answers are streamed, no faster than the client takes them. twisted.web collects the whole body of a
    request before it looks for a resource, spooling it to a temporary file from 100 kB on; the
    application gets it in pieces from there. With `requestFactory=StreamingRequest` the site hands it
    on while it arrives, and body limits and `prepare` work as in our own server.
    """
    return ApplicationResource(application, strip_prefix)


class ApplicationResource(Resource):
    """A `twisted.web` resource for an application; made by `to_resource`."""

    def __init__(self, application: httputil.HTTPServerConnectionDelegate, strip_prefix: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.application = application
        self.strip_prefix = strip_prefix

    def getChild(self, path: bytes, request: Any) -> Resource:
        """Return a leaf for everything that was not put here with `putChild`."""
        # The segment is not ours: give it back, so that prepath says where the application is mounted.
        request.postpath.insert(0, request.prepath.pop())
        return _Leaf(self)

    def render(self, request: Any) -> int:
        """Have the application answer *request*."""
        if not (isinstance(request, StreamingRequest) and request.was_opened):
            _Forwarded(self, request, on_the_wire=False).forward_content()
        return server.NOT_DONE_YET


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, parent: ApplicationResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parent = parent

    def render(self, request: Any) -> int:
        return self.parent.render(request)


class StreamingRequest(server.Request):
    """A request that hands its body on while it arrives, if it is for an `ApplicationResource`.

    Give it to a site as its `requestFactory`. Requests for other resources are as usual, except that
    their resource is looked up twice: before the body, and after it.
    """

    was_opened = False
    _forwarded: _Forwarded | None = None

    def gotLength(self, length: int | None) -> None:
        """Look the resource up when the head is complete; called by twisted.web."""
        super().gotLength(length)  # type: ignore[no-untyped-call]
        channel: Any = self.channel
        # Set by HTTPChannel, by the time it calls here; an HTTP/2 stream has other ones and spools the body.
        method, uri = getattr(channel, "_command", None), getattr(channel, "_path", None)
        version = getattr(channel, "_version", None)
        if not length and length is not None:
            return
        if not (isinstance(method, bytes) and isinstance(uri, bytes) and isinstance(version, bytes)):
            return
        self.method, self.uri, self.clientproto = method, uri, version
        self.path = uri.split(b"?", 1)[0]
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            found = channel.site.getResourceFor(self)
        except Exception:
            # The regular look-up after the body will answer it.
            return
        target = found.parent if isinstance(found, _Leaf) else found
        if isinstance(target, ApplicationResource):
            self.was_opened = True
            self._forwarded = _Forwarded(target, self, on_the_wire=True)
            self._forwarded.open()

    def handleContentChunk(self, data: bytes) -> None:
        """Hand a part of the body on; called by twisted.web."""
        if self._forwarded is not None:
            self._forwarded.chunk_arrived(data)
        else:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Finish the body; called by twisted.web."""
        if self._forwarded is not None:
            self._forwarded.body_arrived()
        else:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Pass on that the client is gone; called by twisted.web."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if self._forwarded is not None:
            self._forwarded.client_gone()


@implementer(IPushProducer)
class _Forwarded(httputil.HTTPConnection):
    """A request of twisted.web as the connection an application answers to, and the feeder of its body."""

    def __init__(self, resource: ApplicationResource, request: Any, *, on_the_wire: bool) -> None:
        self._request = request
        self._resource = resource
        self.transport: Any = request.transport
        peer = request.getClientAddress()
        self.context = SimpleNamespace(
            remote_ip=getattr(peer, "host", None) or "0.0.0.0",  # noqa: S104 (what a Unix socket is shown as)
            protocol="https" if request.isSecure() else "http",
            address=peer,
            trusted_downstream=[],
        )
        self._delegate: httputil.HTTPMessageDelegate | None = None
        self._close_callback: Callable[[], Any] | None = None
        self._gone = False
        # The request: what has arrived, what the application has had of it.
        self._arriving = on_the_wire
        self._announced = 0
        self._received = 0
        self._drained = 0
        self._max_body_size: int | None = None
        self._waiting: Deferred[Any] | None = None
        self._pending: list[bytes] = []
        self._ending = False
        self._body_done = False
        self._reading_paused = False
        # The answer.
        self._answered = False
        self._closing = False
        self._paused = False
        self._unpaused: list[WriteDeferred] = []

    # -- the request -------------------------------------------------------------------------------

    def open(self) -> None:
        """Give the head to the application."""
        request = self._request
        uri = request.uri
        depth = len(request.prepath)
        if self._resource.strip_prefix and depth:
            uri = b"/" + b"/".join(uri.split(b"/")[depth + 1 :])
        start_line = httputil.RequestStartLine(
            request.method.decode("latin-1"), uri.decode("latin-1"), request.clientproto.decode("latin-1")
        )
        headers = httputil.HTTPHeaders()
        for name, values in request.requestHeaders.getAllRawHeaders():
            for value in values:
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        self._announced = _body_length(headers) or 0
        try:
            self._delegate = self._resource.application.start_request(self, self)
            self._wait_for(self._delegate.headers_received(start_line, headers))
        except Exception:
            self._refuse(Failure())

    def forward_content(self) -> None:
        """Open, and feed the application with the body that twisted.web has collected."""
        self._request.notifyFinish().addErrback(lambda _: self.client_gone())
        self.open()
        self._feed_content()

    def _feed_content(self, _result: object = None) -> None:
        while not (self._gone or self._answered or self._body_done):
            if self._waiting is not None:
                self._waiting.addCallback(self._feed_content)
                return
            chunk = self._request.content.read(_CHUNK)
            if chunk:
                self._give(chunk)
            else:
                self._give_end()

    def chunk_arrived(self, chunk: bytes) -> None:
        """Take a part of the body from the wire."""
        if not self._answered:
            self._give(chunk)
            return
        # twisted.web cannot begin the next request before this one is read.
        self._drained += len(chunk)
        if self._drained > _MOST_DRAINED:
            self.transport.loseConnection()

    def body_arrived(self) -> None:
        """Hear that the body is complete."""
        self._arriving = False
        if self._answered:
            self._finish_request()
        else:
            self._give_end()

    def _give(self, chunk: bytes) -> None:
        """Hand a part of the body on, or keep it while the application is busy; the wire is not read then."""
        if self._delegate is None or self._gone or self._answered:
            return
        if self._waiting is not None:
            self._pending.append(chunk)
            return
        self._received += len(chunk)
        limit = self._max_body_size
        if limit is not None and max(self._announced, self._received) > limit:
            self._refuse(Failure(httputil.HTTPInputError("body too large", status=413)))
            return
        try:
            self._wait_for(self._delegate.data_received(chunk))
        except Exception:
            self._refuse(Failure())

    def _give_end(self) -> None:
        if self._waiting is not None:
            self._ending = True
        elif not (self._body_done or self._delegate is None or self._gone or self._answered):
            self._body_done = True
            try:
                self._delegate.finish()
            except Exception:
                self._refuse(Failure())

    def _wait_for(self, result: Awaitable[Any] | None) -> None:
        if result is None or not is_awaitable(result):
            return
        waiting = self._waiting = drive(result)
        if self._arriving and not waiting.called:
            self._pause_reading()
        waiting.addCallbacks(self._taken, self._not_taken)

    def _taken(self, _result: object) -> None:
        self._waiting = None
        pending, self._pending = self._pending, []
        for chunk in pending:
            self._give(chunk)
        if self._waiting is None:
            self._resume_reading()
            if self._ending:
                self._give_end()

    def _not_taken(self, failure: Failure) -> None:
        self._waiting = None
        self._refuse(failure)

    def _pause_reading(self) -> None:
        producer = getattr(self._request.channel, "_networkProducer", None)
        if producer is not None and not self._reading_paused:
            self._reading_paused = True
            producer.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            producer = getattr(self._request.channel, "_networkProducer", None)
            if producer is not None:
                producer.resumeProducing()

    def _refuse(self, failure: Failure) -> None:
        """Answer a request that the application could not take."""
        error = failure.value
        if isinstance(error, httputil.HTTPInputError):
            status = error.status
        else:
            status = 500
            if not self._gone:
                app_log.error(
                    "Uncaught exception",
                    exc_info=(failure.type, failure.value, failure.getTracebackObject()),  # type: ignore[arg-type]
                )
        if self._gone or self._answered:
            return
        if self._request.startedWriting:
            self.abort()
            return
        headers = httputil.HTTPHeaders({"Content-Length": "0", "Connection": "close"})
        reason = httputil.responses.get(status, "Unknown")
        self.write_headers(httputil.ResponseStartLine("HTTP/1.1", status, reason), headers)
        self.finish()
        if not self._body_done and self._delegate is not None:
            self._delegate.on_connection_close()

    def client_gone(self) -> None:
        """Tell the application that nobody is there any more."""
        if self._gone or self._answered:
            return
        self._gone = True
        callback, self._close_callback = self._close_callback, None
        if not self._body_done and self._delegate is not None:
            self._delegate.on_connection_close()
        if callback is not None:
            callback()
        # Only now: who waits to write on is to know that there is nobody to write to.
        waiting, self._unpaused = self._unpaused, []
        for taken in waiting:
            taken.lose()

    # -- the connection, as the application sees it ------------------------------------------------

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> Deferred[None]:
        """Write the head of the answer; see `HTTPConnection`."""
        if self._gone or self._answered:
            return self._when_taken()
        request = self._request
        _, code, reason = cast("httputil.ResponseStartLine", start_line)
        if code < 200:
            # Not the answer yet, or (101) the last that is HTTP on this connection; twisted.web has no
            # words for it.
            self.transport.write(response_head(code, reason, headers, ""))
            return self._when_taken()
        request.setResponseCode(code, reason.encode("latin-1"))
        self._closing = "close" in headers.get("Connection", "").lower()
        for name in headers:
            if name not in HOP_BY_HOP:
                request.responseHeaders.setRawHeaders(
                    name.encode("latin-1"), [value.encode("latin-1") for value in headers.get_list(name)]
                )
        # No default of twisted.web's: the application has decided about its type.
        cast("Any", request).defaultContentType = None
        request.registerProducer(self, True)
        request.write(chunk or b"")
        return self._when_taken()

    def write(self, chunk: bytes) -> Deferred[None]:
        """Write a part of the answer; see `HTTPConnection`."""
        if not self._gone and not self._answered:
            self._request.write(chunk)
        return self._when_taken()

    def finish(self) -> None:
        """End the answer; see `HTTPConnection`."""
        if self._gone or self._answered:
            return
        self._answered = True
        self._release_writers()
        if self._request.producer is not None:
            self._request.unregisterProducer()
        self._pending = []
        self._resume_reading()
        if not self._arriving:
            self._finish_request()
        elif self._announced > _MOST_DRAINED or self._closing:
            self.transport.loseConnection()

    def _finish_request(self) -> None:
        if self._request._disconnected:
            return
        self._request.finish()
        if self._closing:
            self.transport.loseConnection()

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        """Have *callback* called when the client goes away; see `HTTPConnection`."""
        self._close_callback = callback

    def set_max_body_size(self, max_body_size: int) -> None:
        """Refuse a body above so many bytes; see `HTTPConnection`."""
        self._max_body_size = max_body_size

    def set_body_timeout(self, timeout: float) -> None:
        """Do nothing: the site's own `timeout` applies."""

    def detach(self, successor: IProtocol | None = None) -> Any:
        """Give the connection to the protocol *successor*; HTTP/1.1 only. See `HTTPConnection`."""
        channel = self._request.channel
        upgrade = getattr(channel, "_protocolUpgradeForWebsockets", None)
        if upgrade is None:
            raise RuntimeError("only a connection of HTTP/1.1 can be handed over")
        self._answered = True
        channel.setTimeout(None)
        upgrade(successor if successor is not None else Protocol())
        return channel.transport

    def abort(self) -> None:
        """Break the connection off."""
        abort = getattr(self.transport, "abortConnection", None) or self.transport.loseConnection
        abort()

    def _when_taken(self) -> WriteDeferred:
        taken = WriteDeferred()
        if self._gone:
            taken.lose()
        elif self._paused:
            self._unpaused.append(taken)
        else:
            taken.callback(None)
        return taken

    def _release_writers(self) -> None:
        waiting, self._unpaused = self._unpaused, []
        for taken in waiting:
            if not taken.called:
                taken.callback(None)

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._release_writers()

    def stopProducing(self) -> None:
        """The client is gone; twisted.web tells the request right after this."""
