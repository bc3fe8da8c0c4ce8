"""From the engine's calls to a handler: one delegate per request.

The engine (or a router, or a test) calls `headers_received`, `data_received` for each piece of the body, and
`finish`; here the body goes where the handler wants it, the handler is made, and its way through the request
begun, in a context of its own. `cycloneish.web.application` makes the delegates.

That context is not a copy of the current one: the engine may call from within another request of the same
connection, and on the asyncio reactor its readers and timers keep the context in which they were set up.
"""

from __future__ import annotations

from asyncio import CancelledError as FutureCancelled
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any
from weakref import ref

from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from cycloneish.web.body import BufferedBody, FormBody, body_for
from cycloneish.web.handler import RequestHandler
from cycloneish.web.rendering import RenderingMixin
from cycloneish.web.unhandled import current_handler

if TYPE_CHECKING:
    from cycloneish.web.application import Application

__all__ = ["ApplicationDelegate", "HandlerDelegate", "base_context"]


def base_context(connection: Any) -> Context:
    """What the contexts of the requests of *connection* are copied from: that of its first request.

    Nothing of a request is in there yet. It stays with the connection, as its attribute `base_context`.
    """
    base: Context | None = getattr(connection, "base_context", None)
    if base is None:
        base = copy_context()
        # A stand-in for a connection may be anything, None too.
        with suppress(AttributeError):
            connection.base_context = base
    return base


class HandlerDelegate(HTTPMessageDelegate):
    """Answers one request with one handler.

    :param handler_kwargs: for `initialize`.
    :param path_args: unnamed groups of the path, percent-decoded.
    :param path_kwargs: named groups.
    """

    _body: BufferedBody | FormBody | None = None
    # Made when it begins: with the head where it streams the body, else when the body is there.
    handler: RequestHandler | None = None

    def __init__(
        self,
        application: Application,
        request: HTTPServerRequest,
        handler_class: type[RequestHandler],
        handler_kwargs: dict[str, Any] | None = None,
        path_args: Sequence[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> None:
        self.application = application
        self.request = request
        self._base = base_context(request.server_connection)
        self.handler_class = handler_class
        self.handler_kwargs = handler_kwargs or {}
        self.path_args = path_args or ()
        self.path_kwargs = path_kwargs or {}

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        """Get ready for the body, or begin the handler if it streams it."""
        values = headers._values
        streams = self.handler_class._stream_request_body
        if streams or "Content-Length" in values or "Transfer-Encoding" in values:
            self._limit_body()
            if streams:
                return self._begin()
            self._body = body_for(self.request, self.application.settings)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        """Pass on a piece of the body."""
        if self._body is not None:
            return self._body.write(chunk)
        handler = self.handler
        if handler is None or handler._finished:
            return None
        return handler._own_context(self._base).run(handler._receive, chunk)

    def finish(self) -> None:
        """Answer, now that the whole request is there."""
        body = self._body
        if body is not None:
            try:
                waiting = body.finish(self.request)
            except HTTPInputError as error:
                self._refuse_form(error)
                return
            if waiting is not None:
                waiting.addCallbacks(
                    lambda _: self._base.copy().run(self._answer),
                    lambda failure: self._refuse_form(failure.value),
                )
                return
        elif self.handler is not None:
            self.handler._own_context(self._base).run(self.handler._execute_body)
            return
        self._base.copy().run(self._answer)

    def on_connection_close(self) -> None:
        """Let go of what there is of a request that will not be completed."""
        if self.handler is not None:
            self.handler._connection_closed()
        elif self._body is not None:
            self._body.close()
            self._body = None

    def execute(self) -> None:
        """Answer a request that is complete, however it came, in a copy of the caller's context."""
        copy_context().run(self._answer)

    def _answer(self) -> None:
        handler = self._make_handler()
        if handler is not None:
            if self._body is not None:
                handler._on_conclusion = self._close_body
            handler._execute(self.path_args, self.path_kwargs)

    def _begin(self) -> Awaitable[Any] | None:
        context = self._base.copy()
        handler = self.handler = context.run(self._make_handler)
        if handler is None:
            return None
        return context.run(handler._execute_head, self.path_args, self.path_kwargs)

    def _make_handler(self) -> RequestHandler | None:
        """Make the handler; None if that failed and is answered."""
        application = self.application
        settings = application.settings
        if settings.get("compiled_template_cache") is False:
            for loader in list(RenderingMixin._template_loaders.values()):
                loader.reset()
        if settings.get("static_hash_cache") is False:
            application.static_handler_class.reset()
        try:
            handler = self.handler_class(application, self.request, **self.handler_kwargs)
        except (Exception, FutureCancelled) as error:
            # There is no handler of the right class to report it, so a plain one does.
            handler = RequestHandler(application, self.request)
            handler._handle_request_exception(error)
            return None
        current_handler.set(ref(handler))
        if application.transforms:
            handler._transforms = [transform(self.request) for transform in application.transforms]
        return handler

    def _limit_body(self) -> None:
        limit = self.handler_class.max_body_size
        if limit is None:
            limit = self.application.settings.get("max_body_size")
        if limit is not None and self.request.connection is not None:
            self.request.connection.set_max_body_size(limit)

    def _refuse_form(self, error: BaseException) -> None:
        """Answer a form whose end was wrong, or could not be written to disk."""
        handler = self._base.copy().run(self._make_handler)
        if handler is not None:
            handler._on_conclusion = self._close_body
            handler._handle_request_exception(error)

    def _close_body(self) -> None:
        if self._body is not None:
            self._body.close()


class ApplicationDelegate(HandlerDelegate):
    """Finds out from the head which handler it stands for, or passes everything on to another delegate."""

    _other: HTTPMessageDelegate | None = None

    def __init__(self, application: Application, server_conn: object, request_conn: HTTPConnection) -> None:
        self.application = application
        self._connections = (server_conn, request_conn)
        self._base = base_context(server_conn)

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[Any] | None:
        """Make the request and find its handler.

        :raises HTTPInputError: the head cannot be a request's.
        """
        if not isinstance(start_line, RequestStartLine):
            raise HTTPInputError("a response where a request was expected")
        server_conn, request_conn = self._connections
        request = HTTPServerRequest(
            connection=request_conn, server_connection=server_conn, start_line=start_line, headers=headers
        )
        found = self.application._find(request)
        if isinstance(found, HTTPMessageDelegate):
            self._other = found
            return self._base.copy().run(found.headers_received, start_line, headers)
        self.request = request
        self.handler_class, self.handler_kwargs, self.path_args, self.path_kwargs = found
        return super().headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[Any] | None:
        """See `HandlerDelegate`; so for the others."""
        if self._other is None:
            return super().data_received(chunk)
        return self._base.copy().run(self._other.data_received, chunk)

    def finish(self) -> None:
        """See `HandlerDelegate`."""
        if self._other is None:
            super().finish()
        else:
            self._base.copy().run(self._other.finish)

    def on_connection_close(self) -> None:
        """See `HandlerDelegate`."""
        if self._other is None:
            super().on_connection_close()
        else:
            self._other.on_connection_close()
