"""An application of ours inside a site of `twisted.web`: `to_resource` and what it takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from zope.interface import implementer

from cycloneish import httputil
from cycloneish.coroutines import drive, is_awaitable
from cycloneish.http.limits import Limits
from cycloneish.http.response import WriteDeferred, response_head
from cycloneish.log import app_log
from cycloneish.resource.container import body_length
from cycloneish.web.dispatch import base_context
from cycloneish.web.mount import HOP_BY_HOP

__all__ = ["ApplicationResource", "StreamingRequest", "to_resource"]

# In origin form, or the asterisk (RFC 9112, section 3.2), and without a fragment.
_TARGET = re.compile(rb"/[!\"$-~]*|\*")
_CHUNK = 64 * 1024  # bytes of a spooled body handed on at a time
_MOST_DRAINED = 64 * 1024  # bytes of a body that are read behind an early answer, to keep the connection


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
    on while it arrives, and body limits and `prepare` work as in our own server. A body above 100 MiB is
    refused unless the application has another limit (the setting `max_body_size`).
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
        self.base_context = base_context(request.channel)
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
        # twisted.web has no limit of its own.
        self._max_body_size = Limits().max_body_size
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
        try:
            start_line = httputil.RequestStartLine(
                request.method.decode("latin-1"), self._target(), request.clientproto.decode("latin-1")
            )
            headers = httputil.HTTPHeaders()
            for name, values in request.requestHeaders.getAllRawHeaders():
                for value in values:
                    headers.add(name.decode("latin-1"), value.decode("latin-1"))
            self._announced = body_length(headers) or 0
            self._delegate = self._resource.application.start_request(self, self)
            self._wait_for(self._delegate.headers_received(start_line, headers))
        except Exception:
            self._refuse(Failure())

    def _target(self) -> str:
        """The target as the application sees it; our own server lets no other ones through either."""
        target: bytes = self._request.uri
        if not _TARGET.fullmatch(target):
            raise httputil.HTTPInputError("Malformed HTTP request line: invalid target")
        depth = len(self._request.prepath)
        if self._resource.strip_prefix and depth:
            # Without the query, whose slashes are no part of the path.
            path, mark, query = target.partition(b"?")
            target = b"/" + b"/".join(path.split(b"/")[depth + 1 :]) + mark + query
        return target.decode("ascii")

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
        if max(self._announced, self._received) > self._max_body_size:
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
