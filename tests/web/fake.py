"""A connection in memory, so that the web layer can be tested without an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from cycloneish.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine
from cycloneish.web import Application, RequestHandler


class Context:
    remote_ip = "192.0.2.7"
    protocol = "http"


class FakeConnection(HTTPConnection):
    """Remembers what is written to it."""

    context = Context()

    def __init__(self) -> None:
        self.code: int | None = None
        self.reason = ""
        self.headers = HTTPHeaders()
        self.chunks: list[bytes] = []
        self.calls: list[str] = []
        self.finished = False
        self.max_body_size: int | None = None
        self.close_callback: Callable[[], Any] | None = None
        self.drained: Deferred[None] | None = None

    def write_headers(
        self, start_line: Any, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> Deferred[None]:
        self.calls.append("write_headers")
        self.code, self.reason = start_line.code, start_line.reason
        self.headers = headers.copy()
        return self._take(chunk or b"")

    def write(self, chunk: bytes) -> Deferred[None]:
        self.calls.append("write")
        return self._take(chunk)

    def _take(self, chunk: bytes) -> Deferred[None]:
        self.chunks.append(chunk)
        return succeed(None) if self.drained is None else self.drained

    def finish(self) -> None:
        self.calls.append("finish")
        self.finished = True

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        self.close_callback = callback

    def set_max_body_size(self, max_body_size: int) -> None:
        self.max_body_size = max_body_size

    def detach(self) -> Any:
        self.calls.append("detach")
        return "the transport"

    def lose(self) -> None:
        """The client goes away."""
        if self.close_callback is not None:
            self.close_callback()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class Exchange:
    """One request on its way; `connection` has the answer."""

    def __init__(
        self, app: Application, method: str, path: str, headers: dict[str, str] | None = None
    ) -> None:
        self.connection = FakeConnection()
        self.head = HTTPHeaders({"Host": "example.com", **(headers or {})})
        self.delegate: HTTPMessageDelegate = app.start_request(object(), self.connection)
        self.accepted = self.delegate.headers_received(RequestStartLine(method, path, "HTTP/1.1"), self.head)

    def send(self, chunk: bytes) -> Any:
        return self.delegate.data_received(chunk)

    def end(self) -> FakeConnection:
        self.delegate.finish()
        return self.connection


def fetch(
    app: Application | type[RequestHandler],
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    **settings: Any,
) -> FakeConnection:
    """Send a request to an application, or to one made of a handler and settings; return the answer."""
    if not isinstance(app, Application):
        app = Application([(r"/.*", app)], **settings)
    headers = dict(headers or {})
    if body is not None:
        headers.setdefault("Content-Length", str(len(body)))
    exchange = Exchange(app, method, path, headers)
    if body:
        exchange.send(body)
    return exchange.end()


def form(body: str) -> dict[str, Any]:
    """Arguments for `fetch` that post a form."""
    return {
        "method": "POST",
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        "body": body.encode(),
    }


class Logs(logging.Handler):
    """Collects what a logger gets: `with Logs("cycloneish.general") as logs`."""

    def __init__(self, *names: str) -> None:
        super().__init__(logging.DEBUG)
        self.names = names or ("cycloneish.access", "cycloneish.application", "cycloneish.general")
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> str:
        return "\n".join(f"{r.levelname} {r.getMessage()}" for r in self.records)

    def __enter__(self) -> Logs:
        self.before = [(n, logging.getLogger(n).level, logging.getLogger(n).propagate) for n in self.names]
        for name in self.names:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        return self

    def __exit__(self, *args: object) -> None:
        for name, level, propagate in self.before:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.setLevel(level)
            logger.propagate = propagate
