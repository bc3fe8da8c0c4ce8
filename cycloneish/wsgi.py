"""WSGI applications (Django, Flask and the like) inside an application of ours, in threads.

`WSGIContainer` is used as the fallback of a `cycloneish.web.FallbackHandler`, as the target of a
routing rule, or as the callback of an `cycloneish.httpserver.HTTPServer`.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from cycloneish import httputil
from cycloneish.log import app_log
from cycloneish.web.mount import HOP_BY_HOP, Mountable, MountedMessage, break_off, is_closed, log_access

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication
    from twisted.internet.interfaces import IReactorFromThreads

__all__ = ["HTTPRequest", "WSGIContainer", "to_wsgi_str"]

#: An old name of the request, which Tornado has here as well.
HTTPRequest = httputil.HTTPServerRequest

_BODY_BEFORE_START = 1024 * 1024  # bytes; a body up to here is complete before a thread looks at it
_BODY_AHEAD = 256 * 1024  # bytes of the body that may wait for the application before the client has to
_ANSWER_AHEAD = 256 * 1024  # bytes of the answer that may wait for the client before the thread has to
_LONGEST_WAIT = 120.0  # seconds a thread waits for a client that neither sends nor takes a byte


def to_wsgi_str(s: bytes) -> str:
    """Return bytes as WSGI wants to have them: a string with one character for each (PEP 3333)."""
    return s.decode("latin-1")


class WSGIContainer(Mountable):
    """Runs a WSGI application.

    ::

        Application([
            (r"/live", LiveHandler),
            (r".*", FallbackHandler, {"fallback": WSGIContainer(django_app, ThreadPoolExecutor(10))}),
        ])

    The application runs in threads of *executor*, a `concurrent.futures.ThreadPoolExecutor`, and never
    holds up the reactor. Without one it has a single thread of its own, so that it handles one request
    at a time and need not be thread-safe. A request stays in one thread from its start to the `close()`
    of its answer.

    Bodies are streamed. That of a request is at *wsgi.input* while it arrives, once it is larger than 1
    MiB; a list returned by the application is sent with its length, anything else piece by piece.
    Memory is bounded both ways: the application waits for a client that does not take its answer, the
    client for an application that does not read.

    *script_name* is the prefix of the path that is not the application's business (`SCRIPT_NAME`); the
    route has to see to it that every path begins with it.

    Counterpart: `tornado.wsgi.WSGIContainer`, which runs in the event loop's thread unless it is given
    an executor.
    """

    def __init__(
        self,
        wsgi_application: WSGIApplication,
        executor: Executor | None = None,
        *,
        script_name: str = "",
        reactor: IReactorFromThreads | None = None,
    ) -> None:
        self.wsgi_application = wsgi_application
        self.script_name = script_name.rstrip("/")
        self._one_at_a_time = executor is None
        self._executor = executor
        self._reactor = reactor

    @property
    def executor(self) -> Executor:
        """Where the application runs."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="wsgi")
        return self._executor

    def close(self) -> None:
        """Let go of the thread that a container without an executor made for itself."""
        if self._one_at_a_time and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def open_request(self, request: httputil.HTTPServerRequest) -> MountedMessage:
        """Take over *request*; see `Mountable`."""
        return _Exchange(self, request, self._reactor)

    def handle_request(self, request: httputil.HTTPServerRequest) -> Deferred[None]:
        """Answer a request whose body is in `request.body`. Fires when the answer has been given."""
        exchange = _Exchange(self, request, self._reactor)
        if request.body:
            exchange.data_received(request.body)
        exchange.finish()
        return exchange.answered

    def environ(self, request: httputil.HTTPServerRequest) -> dict[str, Any]:
        """Return the environment of PEP 3333 for *request*, with its `body` as *wsgi.input*."""
        body = _Body()
        if request.body:
            body.feed(request.body)
        body.end()
        return self._environ(request, body)

    def _environ(self, request: httputil.HTTPServerRequest, body: _Body) -> dict[str, Any]:
        host, port = _split_host(request.host, 443 if request.protocol == "https" else 80)
        path = to_wsgi_str(unquote_to_bytes(request.path))
        if self.script_name and (path + "/").startswith(self.script_name + "/"):
            path = path[len(self.script_name) :]
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": self.script_name,
            "PATH_INFO": path,
            "QUERY_STRING": request.query,
            "REMOTE_ADDR": request.remote_ip,
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": request.version,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": request.protocol,
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": not self._one_at_a_time,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
        }
        for name, value in request.headers.items():
            if "_" in name:
                # X_Forwarded_For would become the same variable as X-Forwarded-For.
                continue
            if name == "Content-Type":
                environ["CONTENT_TYPE"] = value
            elif name != "Content-Length":
                environ["HTTP_" + name.replace("-", "_").upper()] = value
        length = request.headers.get("Content-Length")
        if body.complete:
            length = str(body.waiting) if length is not None or body.waiting else None
        elif "X-Consumed-Content-Encoding" in request.headers:
            # That of the compressed body: the application would take a part for the whole.
            length = None
        if length is not None:
            environ["CONTENT_LENGTH"] = length
        return environ


def _split_host(host: str, default_port: int) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        return name, port
    return host, str(default_port)


class _ClientGoneError(ConnectionError):
    """Raised in the application's thread when there is nobody to read from or to write to any more."""


class _Body:
    """*wsgi.input*: filled by the reactor, emptied by the application's thread, which waits for more.

    `waiting` is the number of bytes not yet read, `complete` whether there will be no more.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._gone = False
        self.waiting = 0
        self.complete = False
        self.on_read: Callable[[], None] | None = None

    # From the reactor.

    def feed(self, chunk: bytes) -> None:
        with self._changed:
            self._chunks.append(chunk)
            self.waiting += len(chunk)
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.complete = True
            self._changed.notify_all()

    def break_off(self) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    # From the application's thread.

    def _take(self, limit: int) -> bytes:
        """Return up to *limit* bytes, at least one; or none at the end of the body."""
        with self._changed:
            while not self._chunks and not self.complete and not self._gone:
                if not self._changed.wait(_LONGEST_WAIT):
                    raise TimeoutError("no more of the request's body arrived")
            if not self._chunks:
                if self._gone and not self.complete:
                    raise _ClientGoneError("the client went away before its request was complete")
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > limit:
                self._chunks.appendleft(chunk[limit:])
                chunk = chunk[:limit]
            self.waiting -= len(chunk)
        if self.on_read is not None:
            self.on_read()
        return chunk

    def _put_back(self, rest: bytes) -> None:
        with self._changed:
            self._chunks.appendleft(rest)
            self.waiting += len(rest)

    def read(self, size: int = -1) -> bytes:
        """Return *size* bytes, fewer only at the end; all that is to come without a size."""
        wanted = size if size is not None and size >= 0 else sys.maxsize
        parts = []
        while wanted > 0:
            part = self._take(min(wanted, 65536))
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def readline(self, size: int = -1) -> bytes:
        """Return the next line with its end, or the first *size* bytes of it."""
        left = size if size is not None and size >= 0 else sys.maxsize
        parts = []
        while left > 0:
            part = self._take(min(left, 65536))
            if not part:
                break
            end = part.find(b"\n") + 1
            if end:
                if end < len(part):
                    self._put_back(part[end:])
                parts.append(part[:end])
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return the lines to come; with *hint*, about so many bytes of them."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


class _Exchange(MountedMessage):
    """One request and its answer. Methods are called in the reactor's thread unless they say otherwise."""

    def __init__(
        self,
        container: WSGIContainer,
        request: httputil.HTTPServerRequest,
        reactor: IReactorFromThreads | None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor as default_reactor

            reactor = cast("IReactorFromThreads", default_reactor)
        self._reactor = reactor
        self._container = container
        self._request = request
        self._connection = cast("httputil.HTTPConnection", request.connection)
        self._body = _Body()
        self._started = False
        self._body_taken: Deferred[None] | None = None
        self._finished = False
        self._headers_written = False
        self._status = 0
        # What the application's thread waits for, and the reactor counts.
        self._progress = threading.Condition()
        self._unsent = 0
        self._gone = False
        self.answered = Deferred()
        self._connection.set_close_callback(self._client_gone)

    # -- the request -------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if self._finished:
            return None  # answered without reading all of it
        self._body.feed(chunk)
        if not self._started:
            if self._body.waiting > _BODY_BEFORE_START:
                self._start()
            return None
        if self._body.waiting <= _BODY_AHEAD:
            return None
        self._body_taken = Deferred()
        # Looked at again by way of the reactor, as the thread may have read on in the meantime.
        self._reactor.callFromThread(self._let_body_in)
        return self._body_taken

    def _let_body_in(self) -> None:
        waiting = self._body_taken
        if waiting is not None and (self._finished or self._gone or self._body.waiting <= _BODY_AHEAD):
            self._body_taken = None
            waiting.callback(None)

    def finish(self) -> None:
        self._body.end()
        if not self._started:
            self._start()

    def on_connection_close(self) -> None:
        self._client_gone()

    def _client_gone(self) -> None:
        if self._body.complete and not is_closed(self._connection):
            # The client has shut its side only, and may well wait for the answer. If not, a write will tell.
            return
        self._body.break_off()
        with self._progress:
            self._gone = True
            self._progress.notify_all()
        self._let_body_in()
        if not self._started:
            self._end()

    def _start(self) -> None:
        if self._gone:
            return
        self._started = True
        environ = self._container._environ(self._request, self._body)
        self._body.on_read = lambda: self._reactor.callFromThread(self._let_body_in)
        context = contextvars.copy_context()
        self._container.executor.submit(context.run, self._run, environ)

    # -- the application's thread ------------------------------------------------------------------

    def _run(self, environ: dict[str, Any]) -> None:
        """Run the application; called in its thread."""
        answer = _Answer(self, head_only=self._request.method == "HEAD")
        failure: Failure | None = None
        try:
            result = self._container.wsgi_application(environ, answer.start_response)
            try:
                answer.send_all(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except BaseException:
            failure = Failure()
        self._reactor.callFromThread(self._application_ended, failure)

    def send(self, head: _Head | None, data: bytes, last: bool) -> None:
        """Hand a piece of the answer to the reactor; wait while the client is behind. In the thread."""
        with self._progress:
            if self._gone:
                raise _ClientGoneError("the client went away before the answer was complete")
            self._unsent += len(data)
        self._reactor.callFromThread(self._write, head, data, last)
        if last:
            return
        deadline = time.monotonic() + _LONGEST_WAIT
        with self._progress:
            before = self._unsent
            while self._unsent > _ANSWER_AHEAD and not self._gone:
                if not self._progress.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError("the client stopped taking the answer")
                if self._unsent < before:
                    before, deadline = self._unsent, time.monotonic() + _LONGEST_WAIT

    # -- the answer --------------------------------------------------------------------------------

    def _write(self, head: _Head | None, data: bytes, last: bool) -> None:
        if self._gone or self._finished:
            self._sent(None, len(data))
            return
        try:
            if head is not None:
                self._status = head.start_line.code
                taken = self._connection.write_headers(head.start_line, head.headers, data)
                self._headers_written = True
            elif data:
                taken = self._connection.write(data)
            else:
                taken = succeed(None)
            cast("Deferred[Any]", taken).addBoth(self._sent, len(data))
            if last:
                self._finished = True
                self._connection.finish()
                log_access(self._status, self._request)
        except Exception:
            self._fail(Failure())

    def _sent(self, result: object, length: int) -> None:
        with self._progress:
            self._unsent -= length
            self._gone = self._gone or isinstance(result, Failure)
            self._progress.notify_all()

    def _application_ended(self, failure: Failure | None) -> None:
        if failure is not None and not self._gone and failure.check(_ClientGoneError) is None:
            self._fail(failure)
        self._end()

    def _fail(self, failure: Failure) -> None:
        app_log.error(
            "Uncaught exception in WSGI application\n%r",
            self._request,
            exc_info=(failure.type, failure.value, failure.getTracebackObject()),  # type: ignore[arg-type]
        )
        if self._finished:
            return
        self._finished = True
        if self._headers_written:
            # Part of the answer is out; only a broken connection tells the client that the rest is missing.
            break_off(self._connection)
            return
        body = b"Internal Server Error\n"
        headers = httputil.HTTPHeaders({"Content-Type": "text/plain", "Content-Length": str(len(body))})
        start_line = httputil.ResponseStartLine("HTTP/1.1", 500, "Internal Server Error")
        try:
            self._connection.write_headers(
                start_line, headers, b"" if self._request.method == "HEAD" else body
            )
            self._connection.finish()
        except httputil.HTTPOutputError:
            # The engine has begun with the answer that it then refused.
            break_off(self._connection)
        log_access(500, self._request)

    def _end(self) -> None:
        self._finished = True
        self._let_body_in()
        if not self.answered.called:
            self.answered.callback(None)


class _Head:
    """Status and headers of an answer, checked in the application's thread."""

    __slots__ = ("headers", "start_line")

    def __init__(self, status: str, fields: Iterable[tuple[str, str]]) -> None:
        code, _, reason = status.partition(" ")
        if len(code) != 3 or not code.isdigit():
            raise ValueError(f"a WSGI status is three digits, a space and a reason, not {status!r}")
        self.start_line = httputil.ResponseStartLine("HTTP/1.1", int(code), reason)
        self.headers = httputil.HTTPHeaders()
        for name, value in fields:
            self.headers.add(name, value)
        for name in HOP_BY_HOP:
            if name in self.headers:
                del self.headers[name]


class _Answer:
    """`start_response` and what comes after it; lives in the application's thread."""

    def __init__(self, exchange: _Exchange, head_only: bool) -> None:
        self._exchange = exchange
        self._head_only = head_only
        self._head: _Head | None = None
        self._sent = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Take status and headers; PEP 3333."""
        try:
            if exc_info is not None:
                if self._sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            elif self._head is not None:
                raise RuntimeError("start_response was called twice without exc_info")
        finally:
            exc_info = None  # a frame that holds its own traceback is a cycle
        self._head = _Head(status, headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self._send(data, last=False)

    def send_all(self, result: Iterable[bytes]) -> None:
        """Send what the application returned."""
        if isinstance(result, list | tuple):
            body = b"".join(result)
            self._add_length(body)
            self._send(body, last=True)
            return
        for chunk in result:
            if chunk:
                self._send(chunk, last=False)
        self._add_length(b"")
        self._send(b"", last=True)

    def _add_length(self, body: bytes) -> None:
        head = self._started_head()
        if not self._sent and head.start_line.code not in (204, 304) and "Content-Length" not in head.headers:
            head.headers["Content-Length"] = str(len(body))

    def _started_head(self) -> _Head:
        if self._head is None:
            raise RuntimeError("the WSGI application did not call start_response")
        return self._head

    def _send(self, data: bytes, last: bool) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"a WSGI application answers with bytes, not {type(data).__name__}")
        head = self._started_head()
        if self._head_only or head.start_line.code in (204, 304):
            data = b""
        if self._sent:
            self._exchange.send(None, data, last)
            return
        self._sent = True
        if head.start_line.code not in (204, 304) and "Content-Type" not in head.headers:
            head.headers["Content-Type"] = "text/html; charset=UTF-8"
        self._exchange.send(head, data, last)
